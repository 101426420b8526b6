//! What stands around a line on its way to a system's log: syslog (RFC 3164, RFC 5424) or the journal's own protocol.
//!
//! A core: a line without its line feed in, a datagram out.

use super::line::{decimal, rfc3339};
use crate::config::SyslogFormat;

/// Facility local0 (16), severity informational (6): RFC 5424 section 6.2.1.
const PRIORITY: &[u8] = b"<134>";

/// What we are called there.
const NAME: &[u8] = b"baton";

/// Who sends a line, and when.
#[derive(Debug, Clone, Copy)]
pub struct Sender<'a> {
    /// This node's name.
    pub node: &'a str,
    /// The process id.
    pub pid: u32,
    /// Now, in microseconds since 1970.
    pub time_us: u64,
}

/// Makes `datagram` a message of syslog.
pub fn syslog(format: SyslogFormat, sender: &Sender<'_>, line: &[u8], datagram: &mut Vec<u8>) {
    datagram.clear();
    datagram.extend_from_slice(PRIORITY);
    match format {
        // Without time: RFC 3164 has it in local time without a zone, and whoever receives it adds its own (section
        // 4.3.3).
        SyslogFormat::Rfc3164 => {
            datagram.extend_from_slice(NAME);
            datagram.push(b'[');
            decimal(u64::from(sender.pid), datagram);
            datagram.extend_from_slice(b"]: ");
        }
        SyslogFormat::Rfc5424 => {
            datagram.extend_from_slice(b"1 ");
            rfc3339(sender.time_us, datagram);
            datagram.push(b' ');
            datagram.extend_from_slice(sender.node.as_bytes());
            datagram.push(b' ');
            datagram.extend_from_slice(NAME);
            datagram.push(b' ');
            decimal(u64::from(sender.pid), datagram);
            datagram.extend_from_slice(b" access - ");
        }
    }
    datagram.extend_from_slice(line);
}

/// Makes `datagram` an entry of the journal (systemd's "native protocol"). A line has no line feed in it, so that each
/// field stands on a line of its own.
pub fn journal(line: &[u8], datagram: &mut Vec<u8>) {
    datagram.clear();
    datagram.extend_from_slice(b"PRIORITY=6\nSYSLOG_FACILITY=16\nSYSLOG_IDENTIFIER=");
    datagram.extend_from_slice(NAME);
    datagram.extend_from_slice(b"\nBATON_LOG=access\nMESSAGE=");
    datagram.extend_from_slice(line);
    datagram.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENDER: Sender<'_> = Sender { node: "lb-a", pid: 4711, time_us: 951_827_696_123_456 };

    fn framed(frame: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut datagram = b"what was there before".to_vec();
        frame(&mut datagram);
        String::from_utf8(datagram).unwrap()
    }

    #[test]
    fn syslog_has_facility_severity_and_program() {
        assert_eq!(
            framed(|datagram| syslog(SyslogFormat::Rfc3164, &SENDER, b"{\"a\":1}", datagram)),
            "<134>baton[4711]: {\"a\":1}"
        );
        assert_eq!(
            framed(|datagram| syslog(SyslogFormat::Rfc5424, &SENDER, b"{\"a\":1}", datagram)),
            "<134>1 2000-02-29T12:34:56.123456Z lb-a baton 4711 access - {\"a\":1}"
        );
    }

    #[test]
    fn the_journal_gets_a_field_a_line() {
        assert_eq!(
            framed(|datagram| journal(b"{\"a\":1}", datagram)),
            "PRIORITY=6\nSYSLOG_FACILITY=16\nSYSLOG_IDENTIFIER=baton\nBATON_LOG=access\nMESSAGE={\"a\":1}\n"
        );
    }
}
