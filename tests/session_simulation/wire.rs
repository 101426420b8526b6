//! A connection as TCP gives one: what arrives, arrives in order and whole, until nothing arrives any more.

use std::collections::VecDeque;

use crate::model::Memory;

/// Virtual time.
pub type Micros = u64;

pub const MILLISECOND: Micros = 1_000;
pub const SECOND: Micros = 1_000_000;

/// Into how large pieces a run's connections cut what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pieces {
    /// One to three bytes.
    Tiny,
    Small,
    /// Up to 64 KiB, and now and then a byte.
    Large,
}

impl Pieces {
    pub fn size(self, random: &mut fastrand::Rng) -> usize {
        match self {
            Pieces::Tiny => random.usize(1..=3),
            Pieces::Small => random.usize(1..=200),
            Pieces::Large if random.u8(0..8) == 0 => 1,
            Pieces::Large => random.usize(1..=64 * 1024),
        }
    }
}

/// One direction.
#[derive(Debug, Default)]
pub struct Pipe {
    /// What is under way, and when it arrives.
    pub pieces: VecDeque<(Micros, Vec<u8>)>,
    pub bytes: usize,
    /// Until then nobody reads.
    pub held_until: Micros,
    /// The reader is there from then on.
    pub opened_at: Micros,
    /// Nothing is written any more; whether the reader is told of it.
    pub closed: Option<bool>,
    /// Of the writer, when it said hello.
    pub greeting: Option<Memory>,
    last_arrival: Micros,
}

/// Both, by the writer.
#[derive(Debug, Default)]
pub struct Connection {
    pub pipes: [Pipe; 2],
    /// It was broken or held up: whoever gives it up has a reason to.
    pub is_troubled: bool,
}

impl Pipe {
    /// When something that is written now arrives, with this delay.
    pub fn arrival(&mut self, now: Micros, delay: Micros) -> Micros {
        self.last_arrival = self.last_arrival.max(now + delay).max(self.held_until).max(self.opened_at);
        self.last_arrival
    }

    /// Nobody holds it up any more. Gives the number of pieces that waited for that.
    pub fn release(&mut self, now: Micros) -> usize {
        if self.held_until <= now {
            return 0;
        }
        let at = now.max(self.opened_at);
        (self.held_until, self.last_arrival) = (0, at);
        self.pieces.iter_mut().for_each(|(arrival, _)| *arrival = at);
        self.pieces.len()
    }

    /// Loses everything after some byte of what is under way. Gives the time at which the reader may be told.
    pub fn cut(&mut self, random: &mut fastrand::Rng, is_told: bool) -> Micros {
        let mut left = random.usize(0..=self.bytes);
        self.bytes = left;
        for (_, piece) in &mut self.pieces {
            piece.truncate(left);
            left -= piece.len();
        }
        self.pieces.retain(|(_, piece)| !piece.is_empty());
        self.close(is_told)
    }

    /// What is under way still arrives.
    pub fn close(&mut self, is_told: bool) -> Micros {
        self.closed = Some(self.closed.unwrap_or(true) && is_told);
        self.last_arrival.max(self.held_until)
    }
}
