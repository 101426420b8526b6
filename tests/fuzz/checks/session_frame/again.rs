//! Frames from what was read of them.

use baton::session::frame::{self, Frame, Limits, Names};

/// What is decoded gives the same bytes again; `None` for entries of which one is not to be believed.
pub fn said(frame: &Frame<'_>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match frame {
        Frame::Hello(hello) => frame::put_hello(&mut out, hello),
        Frame::Names(Names { first, servers, .. }) if *first != 0 || servers.is_empty() => return None,
        Frame::Names(names) => frame::put_names(&mut out, names.pool, &names.name, &names.servers),
        Frame::Entries { sequence, is_snapshot, records } => {
            let records: Vec<_> = records.iter().collect::<Option<_>>()?;
            let fill = |out: &mut Vec<u8>| records.iter().for_each(|record| frame::put_record(out, record));
            if frame::put_entries(&mut out, *sequence, *is_snapshot, fill) == 0 {
                return None;
            }
        }
        Frame::Limits(Limits { first, names }) if *first != 0 || names.is_empty() => return None,
        Frame::Limits(limits) => frame::put_limits(&mut out, &limits.names),
        Frame::Counters { sequence, records } => {
            let records: Vec<_> = records.iter().collect::<Option<_>>()?;
            let fill = |out: &mut Vec<u8>| records.iter().for_each(|record| frame::put_counter(out, record));
            if frame::put_counters(&mut out, *sequence, fill) == 0 {
                return None;
            }
        }
        Frame::Fact { sequence, key, version, value } => frame::put_fact(&mut out, *sequence, key, *version, value),
        Frame::SnapshotEnd { sequence } => frame::put_snapshot_end(&mut out, *sequence),
        Frame::Handled { sequence } => frame::put_handled(&mut out, *sequence),
        Frame::Goodbye { reason } => frame::put_goodbye(&mut out, reason),
    }
    Some(out)
}
