//! What hyper lets a server's head get away with: lines that end in LF alone, and empty lines in front of it. Core.
//!
//! Another reader may see other lines there, and so other fields. Everything else that is odd in a head, hyper refuses or
//! `forward` does. One pass looks for the ends of lines; nothing is kept but what a line cut in two needs.

/// Follows a response's head, and the interim ones in front of it, as their bytes come.
#[derive(Debug, Clone, Copy)]
pub struct HeadGate {
    phase: Phase,
    /// Bytes of the line that is not complete yet, and the last of them.
    line_bytes: usize,
    last: u8,
    /// The digits of the status, as far as they have come.
    status: [u8; 3],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    StatusLine,
    Fields,
    /// The head is whole; what follows is not looked at.
    Past,
}

/// A line that ends as none may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadLine;

/// Where the status stands: behind `HTTP/1.1 `.
const STATUS_AT: usize = 9;

impl Default for HeadGate {
    /// In front of a response.
    fn default() -> Self {
        Self { phase: Phase::StatusLine, line_bytes: 0, last: 0, status: [0; 3] }
    }
}

impl HeadGate {
    /// A gate that looks at nothing.
    pub fn open() -> Self {
        Self { phase: Phase::Past, ..Self::default() }
    }

    /// Looks at what has come.
    ///
    /// # Errors
    /// When a line ends without CR (RFC 9112 section 2.2), or there is an empty one where the status line belongs.
    pub fn inspect(&mut self, mut bytes: &[u8]) -> Result<(), BadLine> {
        while self.phase != Phase::Past && !bytes.is_empty() {
            let Some(end) = memchr::memchr(b'\n', bytes) else {
                self.note(bytes);
                return Ok(());
            };
            let (line, rest) = bytes.split_at(end);
            self.note(line);
            self.line_ended()?;
            bytes = rest.get(1..).unwrap_or_default();
        }
        Ok(())
    }

    fn note(&mut self, part: &[u8]) {
        if self.phase == Phase::StatusLine {
            for (index, digit) in self.status.iter_mut().enumerate() {
                let at = (STATUS_AT + index).checked_sub(self.line_bytes);
                if let Some(found) = at.and_then(|at| part.get(at)) {
                    *digit = *found;
                }
            }
        }
        self.line_bytes = self.line_bytes.saturating_add(part.len());
        self.last = part.last().copied().unwrap_or(self.last);
    }

    fn line_ended(&mut self) -> Result<(), BadLine> {
        let is_empty = self.line_bytes <= 1;
        if self.last != b'\r' || (is_empty && self.phase == Phase::StatusLine) {
            return Err(BadLine);
        }
        // What follows a switch of protocols is no head.
        let is_interim = self.status.first() == Some(&b'1') && self.status != *b"101";
        match self.phase {
            Phase::StatusLine => self.phase = Phase::Fields,
            Phase::Fields if is_empty && is_interim => *self = Self::default(),
            Phase::Fields if is_empty => self.phase = Phase::Past,
            Phase::Fields | Phase::Past => {}
        }
        (self.line_bytes, self.last) = (0, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of these bytes, whole and in two parts cut anywhere.
    fn judge(text: &str) -> Result<(), BadLine> {
        let whole = HeadGate::default().inspect(text.as_bytes());
        for cut in 0..text.len() {
            let mut gate = HeadGate::default();
            let (first, second) = text.as_bytes().split_at(cut);
            let parts = gate.inspect(first).and_then(|()| gate.inspect(second));
            assert_eq!(parts, whole, "{text:?} cut at {cut}");
        }
        whole
    }

    #[test]
    fn lines_of_a_head_end_in_cr_lf() {
        for good in [
            "HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody\n\nof any kind\n",
            "HTTP/1.1 204\r\n\r\n",
            "HTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 200 OK\r\n\r\n\n",
            "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n\n\n",
            "HTTP/1.1 200 OK\r\nA: b",
        ] {
            assert_eq!(judge(good), Ok(()), "{good:?}");
        }
        for bad in [
            "HTTP/1.1 200 OK\n",
            "HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n\n",
            "HTTP/1.1 200 OK\r\n\n",
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
            "\nHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 103 Early\r\nA: b\n\r\n",
            "HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\n\r\n",
            "HTTP/1.1 103 Early\r\n\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        ] {
            assert_eq!(judge(bad), Err(BadLine), "{bad:?}");
        }
    }
}
