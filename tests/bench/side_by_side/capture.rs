//! What the switch saw in a round, and what became of the probes, for whoever wants to know where the time went.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use baton::lab::ledger::{Probe, ProbeOutcome};
use baton::lab::process::Process;
use baton::lab::topology::Topology;
use baton::lab::wait_for;
use rustix::process::Signal;

use crate::keepalived::find_program;

/// Time for dumpcap to begin, or to write down the rest.
const PATIENCE: Duration = Duration::from_secs(10);

/// A capture at all ports of the switch. It ends when it is dropped.
pub struct Capture {
    dumpcap: Process,
    path: PathBuf,
}

impl Capture {
    /// Starts it; the frames go to `path` with `.pcap` behind.
    pub fn start(topology: &Topology, path: &Path) -> Result<Self> {
        let directory = path.parent().context("a file in a directory")?;
        fs::create_dir_all(directory)?;
        let with = |extension: &str| PathBuf::from(format!("{}.{extension}", path.display()));
        let mut command = topology.switch().command(find_program("dumpcap")?);
        command.args(["-q", "-P", "-s", "200", "-B", "16", "-i", "any", "-w"]).arg(with("pcap"));
        let dumpcap = Process::spawn("dumpcap", command, &with("log"))?;
        let has_begun = || fs::metadata(with("pcap")).is_ok_and(|file| file.len() > 0).then_some(());
        wait_for("the capture to begin", PATIENCE, has_begun)?;
        Ok(Self { dumpcap, path: path.to_owned() })
    }

    /// Writes the probes down, in milliseconds after the event; its time is in the first line.
    pub fn write_probes(&self, struck_at: SystemTime, struck: Instant, probes: &[Probe]) -> Result<()> {
        let since_1970 = struck_at.duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64();
        let mut text = format!("event at {since_1970:.6}\n");
        for probe in probes {
            let ms = |at: Instant| {
                let after = at.saturating_duration_since(struck).as_secs_f64();
                (after - struck.saturating_duration_since(at).as_secs_f64()) * 1000.0
            };
            let outcome = match probe.outcome {
                ProbeOutcome::Answered { server } => format!("answered by {server:?}"),
                ProbeOutcome::Failed(failure) => format!("{failure:?}"),
            };
            let _ = writeln!(text, "{:9.1} {:9.1} {outcome}", ms(probe.start), ms(probe.end));
        }
        Ok(fs::write(format!("{}.probes", self.path.display()), text)?)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.dumpcap.signal(Signal::INT);
        let _ = self.dumpcap.wait(PATIENCE);
    }
}
