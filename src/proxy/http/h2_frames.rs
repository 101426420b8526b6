//! Counts what a client of HTTP/2 sends, frame by frame, so that work that leads to nothing stays bounded.
//!
//! h2 judges frames; what it does not judge is how many come that are each allowed: PING, SETTINGS, PRIORITY, empty DATA,
//! WINDOW_UPDATE, frames of unknown types. RFC 9113 section 10.5 leaves it to the endpoint to watch for that. Each such
//! frame costs tokens here; time, requests, and bytes that are really moved bring them back. A client that has none left
//! is told ENHANCE_YOUR_CALM.
//!
//! A core: bytes and times in, verdict out.

use std::time::Duration;

/// Tokens at the start, and at most: a browser that opens a page of a hundred parts spends a tenth of them.
const TOKENS_MAX: u32 = 2000;

/// Tokens that come back each second.
const TOKENS_PER_SECOND: u32 = 200;

/// Bytes sent to the client that bring one token back: one that receives has to send WINDOW_UPDATE for it.
const BYTES_PER_TOKEN: u32 = 128;

/// What a request brings back: it may come with PRIORITY, PRIORITY_UPDATE and WINDOW_UPDATE of its own.
const TOKENS_PER_REQUEST: u32 = 4;

/// Requests that a client may take back before they are answered, at the start and at most. A browser that leaves a page
/// takes back what is under way, at most the number of streams that may be open.
const RESETS_MAX: u32 = 200;

/// Of these, how many come back each second.
const RESETS_PER_SECOND: u32 = 10;

/// Bytes of the client's connection preface (RFC 9113 section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEAD_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;

const END_STREAM_OR_ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// Why a connection ends that h2 would have let go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offence {
    /// Too many frames that lead to nothing, or too many requests that were taken back.
    Flood,
    /// The first frame is no SETTINGS (RFC 9113 section 3.4).
    NoSettings,
}

/// Follows the frames of one connection.
#[derive(Debug)]
pub struct Frames {
    preface_left: usize,
    head: [u8; HEAD_BYTES],
    head_len: usize,
    payload_left: usize,
    is_first: bool,
    /// Between the first byte of HEADERS and the last of its block.
    in_block: bool,
    ends_block: bool,
    tokens: u32,
    resets: u32,
    bytes_sent: u32,
    refilled: Duration,
}

impl Frames {
    /// In front of the preface.
    pub fn new(now: Duration) -> Self {
        Self {
            preface_left: PREFACE.len(),
            head: [0; HEAD_BYTES],
            head_len: 0,
            payload_left: 0,
            is_first: true,
            in_block: false,
            ends_block: false,
            tokens: TOKENS_MAX,
            resets: RESETS_MAX,
            bytes_sent: 0,
            refilled: now,
        }
    }

    /// Whether a field block has begun and not ended.
    pub fn is_in_block(&self) -> bool {
        self.in_block || (self.head_len > 3 && self.head.get(3) == Some(&HEADERS))
    }

    /// Takes what has been read. `now` counts from any fixed point.
    ///
    /// # Errors
    /// The connection has to end.
    pub fn received(&mut self, bytes: &[u8], now: Duration) -> Result<(), Offence> {
        self.refill(now);
        let skipped = bytes.len().min(self.preface_left);
        self.preface_left -= skipped;
        let mut rest = bytes.get(skipped..).unwrap_or_default();
        while !rest.is_empty() {
            if self.payload_left > 0 {
                let len = rest.len().min(self.payload_left);
                self.payload_left -= len;
                rest = rest.get(len..).unwrap_or_default();
                self.end_frame();
                continue;
            }
            let len = rest.len().min(HEAD_BYTES - self.head_len);
            let (part, after) = rest.split_at(len);
            if let Some(space) = self.head.get_mut(self.head_len..self.head_len + len) {
                space.copy_from_slice(part);
            }
            self.head_len += len;
            rest = after;
            if self.head_len == HEAD_BYTES {
                self.begin_frame()?;
                self.end_frame();
            }
        }
        Ok(())
    }

    /// Takes what has been written.
    pub fn sent(&mut self, len: usize) {
        let bytes = self.bytes_sent.saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
        self.give(bytes / BYTES_PER_TOKEN);
        self.bytes_sent = bytes % BYTES_PER_TOKEN;
    }

    /// A request was taken back before its response had ended.
    ///
    /// # Errors
    /// There were too many of them.
    pub fn taken_back(&mut self, now: Duration) -> Result<(), Offence> {
        self.refill(now);
        self.resets = self.resets.checked_sub(1).ok_or(Offence::Flood)?;
        Ok(())
    }

    /// A response was sent to its end.
    pub fn completed(&mut self) {
        self.resets = self.resets.saturating_add(1).min(RESETS_MAX);
    }

    fn begin_frame(&mut self) -> Result<(), Offence> {
        let [a, b, c, kind, flags, ..] = self.head;
        self.head_len = 0;
        self.payload_left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let is_settings = kind == SETTINGS && flags & END_STREAM_OR_ACK == 0;
        if std::mem::take(&mut self.is_first) && !is_settings {
            return Err(Offence::NoSettings);
        }
        let cost = match kind {
            // What is small, h2 has a budget for.
            DATA if self.payload_left > 0 || flags & END_STREAM_OR_ACK != 0 => {
                self.give(1);
                0
            }
            HEADERS => {
                self.in_block = true;
                self.give(TOKENS_PER_REQUEST);
                0
            }
            // It changes windows and tables, and has to be acknowledged.
            SETTINGS | CONTINUATION | DATA => 4,
            _ => 1,
        };
        if matches!(kind, HEADERS | CONTINUATION) {
            self.ends_block = flags & END_HEADERS != 0;
        }
        self.tokens = self.tokens.checked_sub(cost).ok_or(Offence::Flood)?;
        Ok(())
    }

    fn end_frame(&mut self) {
        if self.payload_left == 0 && std::mem::take(&mut self.ends_block) {
            self.in_block = false;
        }
    }

    fn give(&mut self, tokens: u32) {
        self.tokens = self.tokens.saturating_add(tokens).min(TOKENS_MAX);
    }

    fn refill(&mut self, now: Duration) {
        let seconds = now.saturating_sub(self.refilled).as_secs();
        if seconds > 0 {
            let times = u32::try_from(seconds).unwrap_or(u32::MAX);
            self.give(TOKENS_PER_SECOND.saturating_mul(times));
            self.resets = self.resets.saturating_add(RESETS_PER_SECOND.saturating_mul(times)).min(RESETS_MAX);
            self.refilled += Duration::from_secs(seconds);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(5);

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let len = u8::try_from(payload.len()).unwrap();
        [&[0, 0, len, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// Behind the preface and the client's SETTINGS.
    fn begun() -> Frames {
        let mut frames = Frames::new(NOW);
        frames.received(&[&PREFACE[..], &frame(SETTINGS, 0, &[])].concat(), NOW).unwrap();
        frames
    }

    #[test]
    fn first_frame_has_to_be_settings() {
        let mut frames = Frames::new(NOW);
        assert_eq!(frames.received(PREFACE, NOW), Ok(()));
        assert_eq!(frames.received(&frame(6, 0, &[0; 8]), NOW), Err(Offence::NoSettings));
        let mut frames = Frames::new(NOW);
        let acknowledgement = [&PREFACE[..], &frame(SETTINGS, 1, &[])].concat();
        assert_eq!(frames.received(&acknowledgement, NOW), Err(Offence::NoSettings));
    }

    #[test]
    fn pings_are_a_flood_when_there_are_too_many_in_too_short_a_time() {
        let mut frames = begun();
        let ping = frame(6, 0, &[0; 8]);
        let count = (0..).take_while(|_| frames.received(&ping, NOW).is_ok()).count();
        assert_eq!(count, 1996);
        let mut frames = begun();
        (0..1996).for_each(|_| frames.received(&ping, NOW).unwrap());
        // A second later 200 more are allowed.
        let later = NOW + Duration::from_secs(1);
        let count = (0..).take_while(|_| frames.received(&ping, later).is_ok()).count();
        assert_eq!(count, 200);
    }

    #[test]
    fn a_download_pays_for_its_window_updates() {
        let mut frames = begun();
        let update = frame(8, 0, &[0, 0, 64, 0]);
        for _ in 0..100_000 {
            frames.sent(1024);
            assert_eq!(frames.received(&update, NOW), Ok(()));
        }
    }

    #[test]
    fn frames_are_counted_the_same_however_they_are_cut() {
        let stream = [&PREFACE[..], &frame(SETTINGS, 0, &[0; 6]), &frame(6, 0, &[0; 8]), &frame(0xfe, 0, &[])].concat();
        let mut whole = Frames::new(NOW);
        whole.received(&stream, NOW).unwrap();
        let mut cut = Frames::new(NOW);
        stream.iter().for_each(|byte| cut.received(&[*byte], NOW).unwrap());
        assert_eq!((whole.tokens, cut.tokens), (1994, 1994));
    }

    #[test]
    fn a_field_block_lasts_from_headers_to_its_last_continuation() {
        let mut frames = begun();
        assert!(!frames.is_in_block());
        frames.received(&frame(HEADERS, 0, &[1, 2]), NOW).unwrap();
        assert!(frames.is_in_block());
        frames.received(&frame(CONTINUATION, 0, &[1]), NOW).unwrap();
        assert!(frames.is_in_block());
        let last = frame(CONTINUATION, 4, &[1, 2, 3]);
        frames.received(&last[..11], NOW).unwrap();
        assert!(frames.is_in_block());
        frames.received(&last[11..], NOW).unwrap();
        assert!(!frames.is_in_block());
        frames.received(&frame(HEADERS, 4, &[])[..5], NOW).unwrap();
        assert!(frames.is_in_block());
    }

    #[test]
    fn requests_taken_back_are_counted_against_those_that_are_completed() {
        let mut frames = begun();
        for _ in 0..1000 {
            frames.completed();
            assert_eq!(frames.taken_back(NOW), Ok(()));
        }
        let count = (0..).take_while(|_| frames.taken_back(NOW).is_ok()).count();
        assert_eq!(count, 199);
        let later = NOW + Duration::from_secs(3);
        let count = (0..).take_while(|_| frames.taken_back(later).is_ok()).count();
        assert_eq!(count, 30);
    }
}
