//! Hellos: the datagrams of the second path. Each node of a pair tells the other, every advert interval and over UDP,
//! what it is and what it sees, whether it holds the VIP or not.
//!
//! | bytes | |
//! |---|---|
//! | 0..4 | `BTNH` |
//! | 4 | version of this layout, 1 |
//! | 5..13 | [`tag`] of the VIP |
//! | 13..21 | boot of the sender, a number that its process drew when it started |
//! | 21..25 | the sender's challenge |
//! | 25..37 | echo: boot and challenge of the other node, as last heard; zeros before |
//! | 37..45 | counter, which grows with every hello of a boot |
//! | 45..99 | what it says, see [`Hello`] |
//! | | later releases put more here, which is authenticated and otherwise ignored |
//! | last 16 | the first half of an HMAC-SHA256 over all before |
//!
//! # Who sent it
//! The key of the HMAC is derived from the pair key for one VIP, one path and one direction. So a hello cannot be passed
//! off as one of another VIP or path, and one that is thrown back at its sender is refused.
//!
//! # When it was sent
//! No clock has part in this, and nothing is kept over a restart. Within a boot, the counter has to grow. A boot that is
//! new to us has to prove that it is not a recording: a hello of it has to echo our boot and our present challenge. With
//! that the peer is *established*, and our challenge goes up by one. So no recording of any boot can prove anything ever
//! again: a boot before ours is not echoed, and neither is the challenge of now in what was sent before the last proof.
//!
//! To an established peer only its counter matters, not what it echoes. So whoever replays hellos of past boots costs us
//! an answer each, and changes nothing: what is established stays so until another boot proves itself. Unproven boots are
//! echoed in answers alone, or while there is no established one.
//!
//! What this cannot tell: a hello that somebody on the link holds back and lets pass later, in its order. That somebody
//! could as well cut the link.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};

use super::machine::State;
use super::packet::DropReason;
use crate::units::AdvertInterval;

#[cfg(test)]
mod tests;

/// The longest hello, in bytes: room for what later releases have to say.
pub const LEN_MAX: usize = 160;

const MAGIC: [u8; 4] = *b"BTNH";
const VERSION: u8 = 1;
/// Bytes before what a hello says.
const HEAD_LEN: usize = 45;
const BODY_LEN: usize = 54;
const MAC_LEN: usize = 16;
const LEN_MIN: usize = HEAD_LEN + BODY_LEN + MAC_LEN;

const KEY_LABEL: &[u8] = b"baton hello 1";
const TAG_LABEL: &[u8] = b"baton vip";

/// What a node says of one VIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// What its machine is.
    pub state: State,
    /// 1 to 254, and 0 of a node that gives the VIP up, as in an advert.
    pub priority: u8,
    /// Time until its next hello.
    pub interval: AdvertInterval,
    /// Counts the takeovers that the node has seen.
    pub epoch: u32,
    /// It could hold the VIP.
    pub fit: bool,
    /// It has what the active node's sessions are.
    pub synced: bool,
    /// The active node asks the other to claim: the number of the request.
    pub claim_request: Option<u32>,
    /// The standby asks the active node to hand over: the number of the request.
    pub handover_request: Option<u32>,
    /// Pools with a server that is up.
    pub pools_up: u16,
    /// Servers that are up.
    pub servers_up: u16,
    /// On which paths it hears us, a bit for each.
    pub heard_paths: u8,
    /// The first bytes of the SHA-256 of its configuration file.
    pub config_checksum: [u8; 8],
    /// The sequence ([`super::auth::Signer::last`]) of its last signed advert but those that may still be on their way:
    /// the floor for what comes from now on.
    pub advert_sequence: u64,
    /// Which of its adverts it comes with, from [`Stamps::next`]; 0 when it comes with none.
    pub advert_stamp: u64,
    /// The newest `advert_stamp` that it heard from the present process of the other node, on whatever channel; 0 for
    /// none. By it the other one knows until when we hold back: [`super::machine::PeerSeen::acknowledged`].
    pub heard_stamp: u64,
}

/// When our adverts were sent, by the stamps that the hellos with them carried. One for each VIP.
#[derive(Debug, Clone)]
pub struct Stamps {
    last: u64,
    sent: VecDeque<(u64, Instant)>,
}

/// Adverts that a peer may still acknowledge. It counts for three intervals, and assertions may come in between.
const STAMPS_MAX: usize = 16;

impl Stamps {
    /// `seed` is random, so that the stamps of another process of ours mean nothing to this one.
    pub fn new(seed: u64) -> Self {
        Self { last: seed >> 1, sent: VecDeque::new() }
    }

    /// The stamp of an advert that is about to be sent: the same on every path.
    pub fn next(&mut self, now: Instant) -> u64 {
        self.last += 1;
        if self.sent.len() == STAMPS_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back((self.last, now));
        self.last
    }

    /// Goes on after the last stamp of another process of this node, which left `last`.
    pub fn resume(last: u64) -> Self {
        Self { last, sent: VecDeque::new() }
    }

    /// The stamp of the last advert.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// When the advert with this stamp was sent; `None` when it is too long ago, or not ours.
    pub fn sent_at(&self, stamp: u64) -> Option<Instant> {
        self.sent.iter().find(|(known, _)| *known == stamp).map(|(_, at)| *at)
    }
}

/// A datagram of the peer, opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// The peer sent it just now.
    Fresh(Hello),
    /// The peer sent it, now or long ago.
    Unproven {
        /// A hello is to be sent before the next datagram is opened, so that the peer can prove itself; otherwise the
        /// next one in its turn will do. So answers never outnumber the datagrams that came.
        answer_now: bool,
    },
}

/// The hellos of one VIP on one path, in both directions.
#[derive(Debug, Clone)]
pub struct Channel {
    tag: [u8; 8],
    sending: hmac::Key,
    receiving: hmac::Key,
    boot: u64,
    /// Goes up with every boot of the peer that proved itself.
    challenge: u32,
    counter: u64,
    established: Option<Peer>,
    candidate: Option<Candidate>,
}

/// What a channel leaves to one that goes on in the same boot: what it has sent and what was proven to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Legacy {
    challenge: u32,
    counter: u64,
    established: Option<Peer>,
}

/// A process of the other node, as last heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Peer {
    boot: u64,
    challenge: u32,
    counter: u64,
}

/// One that has yet to prove that it is alive. There is at most one, the last that was heard.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    peer: Peer,
    answer: Answer,
}

/// The answer to a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// The next hello is it.
    Owed,
    /// It was sent, and no other hello since.
    Sent,
    /// It was sent a while ago, and may have been lost.
    Old,
}

impl Channel {
    /// A channel between two nodes, by their names. `path` tells several channels of a VIP apart.
    ///
    /// `boot` is a random number that no other process of this node had. The counter starts at 0 with the channel, so a
    /// channel that replaces another one needs a new boot too.
    pub fn new(pair_key: &[u8], vip_name: &str, own_node: &str, peer_node: &str, path: u8, boot: u64) -> Self {
        let key = |sender: &str, receiver: &str| {
            let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, pair_key));
            context.update(KEY_LABEL);
            // Lengths first, so that no two channels give the same bytes.
            for name in [vip_name, sender, receiver] {
                context.update(&(name.len() as u64).to_be_bytes());
                context.update(name.as_bytes());
            }
            context.update(&[path]);
            hmac::Key::new(hmac::HMAC_SHA256, context.sign().as_ref())
        };
        Self {
            tag: tag(vip_name),
            sending: key(own_node, peer_node),
            receiving: key(peer_node, own_node),
            // An echo of zeros is for "nobody".
            boot: boot.max(1),
            challenge: 0,
            counter: 0,
            established: None,
            candidate: None,
        }
    }

    /// The next datagram to send.
    pub fn seal(&mut self, hello: &Hello) -> Vec<u8> {
        self.counter += 1;
        let (echoed_boot, echoed_challenge) = self.echo();
        let mut datagram = Vec::with_capacity(LEN_MIN);
        datagram.extend(MAGIC);
        datagram.push(VERSION);
        datagram.extend(self.tag);
        datagram.extend(self.boot.to_be_bytes());
        datagram.extend(self.challenge.to_be_bytes());
        datagram.extend(echoed_boot.to_be_bytes());
        datagram.extend(echoed_challenge.to_be_bytes());
        datagram.extend(self.counter.to_be_bytes());
        write_body(hello, &mut datagram);
        let mac = mac(&self.sending, &datagram);
        datagram.extend(mac);
        datagram
    }

    /// Boot and challenge of the peer that the next hello echoes. Notes that it does.
    fn echo(&mut self) -> (u64, u32) {
        let mut echoed = self.established;
        if let Some(candidate) = &mut self.candidate {
            if candidate.answer == Answer::Owed || echoed.is_none() {
                echoed = Some(candidate.peer);
            }
            candidate.answer = match candidate.answer {
                Answer::Owed => Answer::Sent,
                Answer::Sent | Answer::Old => Answer::Old,
            };
        }
        echoed.map_or((0, 0), |peer| (peer.boot, peer.challenge))
    }

    /// Opens a datagram that came on this path.
    ///
    /// # Errors
    /// [`DropReason::TrailingBytes`] over [`LEN_MAX`], [`DropReason::NotHello`], [`DropReason::WrongVersion`],
    /// [`DropReason::Short`], [`DropReason::UnknownVip`], [`DropReason::WrongHmac`], [`DropReason::BadHello`] or
    /// [`DropReason::Replayed`], checked in this order.
    pub fn open(&mut self, datagram: &[u8]) -> Result<Opened, DropReason> {
        let Parts { tag, signed, mac: theirs } = Parts::of(datagram)?;
        if tag != self.tag {
            return Err(DropReason::UnknownVip);
        }
        verify_slices_are_equal(&mac(&self.receiving, signed), theirs).map_err(|_| DropReason::WrongHmac)?;
        let mut fields = Fields(signed.get(MAGIC.len() + 1 + tag.len()..).unwrap_or_default());
        let sender = Peer { boot: fields.u64()?, challenge: fields.u32()?, counter: 0 };
        let echo = (fields.u64()?, fields.u32()?);
        let sender = Peer { counter: fields.u64()?, ..sender };
        let hello = read_body(&mut fields)?;
        self.place(sender, echo).map(|place| match place {
            Place::Established => Opened::Fresh(hello),
            Place::Candidate { answer_now } => Opened::Unproven { answer_now },
        })
    }

    /// The boot of the peer's process, once it is established: another number is another process.
    pub fn peer_boot(&self) -> Option<u64> {
        self.established.map(|peer| peer.boot)
    }

    /// How many datagrams were sealed: the counter of the last one.
    pub fn sealed(&self) -> u64 {
        self.counter
    }

    /// Goes on where another process of this node left off, in the same boot, after it had sealed so many.
    pub fn resume(&mut self, sealed: u64) {
        self.counter = sealed;
    }

    /// Begins above all that channels of earlier processes in the same boot can have said: each seals fewer hellos than there
    /// are milliseconds in 34 years.
    pub fn begin_above(&mut self, generation: u64) {
        self.counter = generation << 40;
        // The lower half is more than a peer is started anew.
        self.challenge = (generation as u32) << 16;
    }

    /// What the next process of this node goes on with.
    pub fn leave(&self) -> Legacy {
        Legacy { challenge: self.challenge, counter: self.counter, established: self.established }
    }

    /// Goes on, in the same boot, with what another process left.
    pub fn take_over(&mut self, legacy: &Legacy) {
        (self.challenge, self.counter, self.established) = (legacy.challenge, legacy.counter, legacy.established);
    }

    /// What the sender of a genuine hello is to us.
    fn place(&mut self, sender: Peer, echo: (u64, u32)) -> Result<Place, DropReason> {
        if let Some(peer) = &mut self.established
            && peer.boot == sender.boot
        {
            peer.follow(sender)?;
            return Ok(Place::Established);
        }
        if echo == (self.boot, self.challenge) {
            self.challenge = self.challenge.wrapping_add(1);
            self.established = Some(sender);
            self.candidate = None;
            return Ok(Place::Established);
        }
        match &mut self.candidate {
            Some(candidate) if candidate.peer.boot == sender.boot => {
                candidate.peer.follow(sender)?;
                // One answer for each of our own hellos, and not for each of its: it may be that it cannot hear us.
                if candidate.answer == Answer::Old {
                    candidate.answer = Answer::Owed;
                    return Ok(Place::Candidate { answer_now: true });
                }
                Ok(Place::Candidate { answer_now: false })
            }
            Some(_) | None => {
                // The last one wins. Whoever else comes between is answered too, so none can be crowded out.
                self.candidate = Some(Candidate { peer: sender, answer: Answer::Owed });
                Ok(Place::Candidate { answer_now: true })
            }
        }
    }
}

enum Place {
    Established,
    Candidate { answer_now: bool },
}

impl Peer {
    /// Takes a later hello of the same boot.
    fn follow(&mut self, sender: Self) -> Result<(), DropReason> {
        if sender.counter <= self.counter {
            return Err(DropReason::Replayed);
        }
        *self = sender;
        Ok(())
    }
}

/// The first 8 bytes of SHA-256 of `baton vip` and the name: which VIP a hello is for.
pub fn tag(vip_name: &str) -> [u8; 8] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(TAG_LABEL);
    context.update(vip_name.as_bytes());
    // A SHA-256 has 32 bytes.
    context.finish().as_ref().first_chunk().copied().unwrap_or_default()
}

/// The tag in a datagram, to find the channel for it; `None` when it is no hello, or not one that we can open.
pub fn tag_of(datagram: &[u8]) -> Option<[u8; 8]> {
    Parts::of(datagram).ok().map(|parts| parts.tag)
}

/// A datagram that has the form of a hello.
struct Parts<'datagram> {
    tag: [u8; 8],
    /// All but the HMAC.
    signed: &'datagram [u8],
    mac: &'datagram [u8; MAC_LEN],
}

impl<'datagram> Parts<'datagram> {
    fn of(datagram: &'datagram [u8]) -> Result<Self, DropReason> {
        if datagram.len() > LEN_MAX {
            return Err(DropReason::TrailingBytes);
        }
        if !datagram.starts_with(&MAGIC) {
            return Err(DropReason::NotHello);
        }
        let mut fields = Fields(datagram.get(MAGIC.len()..).unwrap_or_default());
        if fields.u8()? != VERSION {
            return Err(DropReason::WrongVersion);
        }
        let tag = fields.bytes()?;
        let (signed, mac) = datagram.split_last_chunk().ok_or(DropReason::Short)?;
        if signed.len() < HEAD_LEN + BODY_LEN {
            return Err(DropReason::Short);
        }
        Ok(Self { tag, signed, mac })
    }
}

fn mac(key: &hmac::Key, signed: &[u8]) -> [u8; MAC_LEN] {
    // An HMAC-SHA256 has 32 bytes.
    hmac::sign(key, signed).as_ref().first_chunk().copied().unwrap_or_default()
}

/// Which of the things that are not always there are there.
mod flag {
    pub const FIT: u8 = 1;
    pub const SYNCED: u8 = 1 << 1;
    pub const CLAIM_REQUEST: u8 = 1 << 2;
    pub const HANDOVER_REQUEST: u8 = 1 << 3;
}

/// State, priority, interval in milliseconds (16 bits), epoch (32), flags, paths, pools and servers (16 each), claim and
/// handover request (32 each), checksum of the configuration (64), sequence of the adverts, stamp, heard stamp (64 each).
fn write_body(hello: &Hello, datagram: &mut Vec<u8>) {
    let state = match hello.state {
        State::Init => 0,
        State::Backup => 1,
        State::Active => 2,
    };
    let interval_ms = hello.interval.get().as_millis() as u16; // at most 40950
    let flags = [
        (hello.fit, flag::FIT),
        (hello.synced, flag::SYNCED),
        (hello.claim_request.is_some(), flag::CLAIM_REQUEST),
        (hello.handover_request.is_some(), flag::HANDOVER_REQUEST),
    ];
    let flags = flags.into_iter().filter(|(is_set, _)| *is_set).fold(0, |all, (_, flag)| all | flag);
    datagram.extend([state, hello.priority]);
    datagram.extend(interval_ms.to_be_bytes());
    datagram.extend(hello.epoch.to_be_bytes());
    datagram.extend([flags, hello.heard_paths]);
    datagram.extend(hello.pools_up.to_be_bytes());
    datagram.extend(hello.servers_up.to_be_bytes());
    datagram.extend(hello.claim_request.unwrap_or(0).to_be_bytes());
    datagram.extend(hello.handover_request.unwrap_or(0).to_be_bytes());
    datagram.extend(hello.config_checksum);
    datagram.extend(hello.advert_sequence.to_be_bytes());
    datagram.extend(hello.advert_stamp.to_be_bytes());
    datagram.extend(hello.heard_stamp.to_be_bytes());
}

fn read_body(fields: &mut Fields<'_>) -> Result<Hello, DropReason> {
    let state = match fields.u8()? {
        0 => State::Init,
        1 => State::Backup,
        2 => State::Active,
        _ => return Err(DropReason::BadHello),
    };
    let priority = fields.u8()?;
    let interval = Duration::from_millis(u64::from(fields.u16()?));
    let interval = AdvertInterval::new(interval).ok_or(DropReason::BadHello)?;
    let epoch = fields.u32()?;
    // Flags that a later release added mean nothing to us.
    let flags = fields.u8()?;
    let has = |flag| flags & flag != 0;
    Ok(Hello {
        state,
        priority,
        interval,
        epoch,
        fit: has(flag::FIT),
        synced: has(flag::SYNCED),
        heard_paths: fields.u8()?,
        pools_up: fields.u16()?,
        servers_up: fields.u16()?,
        claim_request: Some(fields.u32()?).filter(|_| has(flag::CLAIM_REQUEST)),
        handover_request: Some(fields.u32()?).filter(|_| has(flag::HANDOVER_REQUEST)),
        config_checksum: fields.bytes()?,
        advert_sequence: fields.u64()?,
        advert_stamp: fields.u64()?,
        heard_stamp: fields.u64()?,
    })
}

/// What is yet to be read, in network order.
struct Fields<'bytes>(&'bytes [u8]);

impl Fields<'_> {
    fn bytes<const LEN: usize>(&mut self) -> Result<[u8; LEN], DropReason> {
        let (field, rest) = self.0.split_first_chunk().ok_or(DropReason::Short)?;
        self.0 = rest;
        Ok(*field)
    }

    fn u8(&mut self) -> Result<u8, DropReason> {
        self.bytes().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, DropReason> {
        self.bytes().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, DropReason> {
        self.bytes().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, DropReason> {
        self.bytes().map(u64::from_be_bytes)
    }
}
