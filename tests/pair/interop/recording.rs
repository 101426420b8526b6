//! Whole frames of one machine, in the file format of tcpdump, and what tshark says of them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::ensure;
use baton::lab::topology::Topology;
use pnet::packet::ethernet::EthernetPacket;

use crate::scene::find_program;
use crate::wire::{hardware_address, open};

/// The header of a capture file: byte order and version, no time zone, any length, Ethernet (pcap-savefile(5)).
const FILE_HEADER: [u32; 6] = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 0x0004_0000, 1];

/// Where IPv4 begins in a frame.
const IP_AT: usize = 14;

/// All frames that a machine sends, from now on. It stops when it is dropped.
pub struct Recording {
    frames: Arc<Mutex<Vec<Vec<u8>>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Recording {
    /// Records at the switch's port of a machine.
    pub fn start(topology: &Topology, host: &str) -> anyhow::Result<Self> {
        let sender = topology.host(host)?.run(hardware_address)??;
        let mut receiver = topology.switch().run(|| open(host))??;
        let (frames, stop) = (Arc::<Mutex<Vec<Vec<u8>>>>::default(), Arc::<AtomicBool>::default());
        let (frames_inside, stop_inside) = (Arc::clone(&frames), Arc::clone(&stop));
        let thread = topology.switch().spawn(&format!("record {host}"), move || {
            while !stop_inside.load(Ordering::Relaxed) {
                let Ok(frame) = receiver.next() else { continue };
                if EthernetPacket::new(frame).is_some_and(|frame| frame.get_source() == sender) {
                    frames_inside.lock().unwrap_or_else(PoisonError::into_inner).push(frame.to_vec());
                }
            }
        })?;
        Ok(Self { frames, stop, thread: Some(thread) })
    }

    /// Everything so far.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A thread that could not enter its namespace recorded nothing, and its test has failed by that.
            let _ended = thread.join();
        }
    }
}

/// What tshark says of the frames that pass `filter`: for each, the values of `fields`, those that occur more than once
/// with commas between.
pub fn tshark(
    directory: &Path,
    frames: &[Vec<u8>],
    options: &[&str],
    filter: &str,
    fields: &[&str],
) -> anyhow::Result<Vec<Vec<String>>> {
    let file = directory.join("frames.pcap");
    fs::write(&file, capture_file(frames))?;
    let mut command = Command::new(find_program("tshark", "tshark")?);
    command.arg("-n").arg("-r").arg(&file).args(options).args(["-Y", filter, "-T", "fields"]);
    // The IPv4 and ICMPv6 checksums are judged as well.
    command.args(["-o", "ip.check_checksum:TRUE"]);
    fields.iter().for_each(|field| {
        command.args(["-e", field]);
    });
    let output = command.env("HOME", directory).output()?;
    ensure!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
}

fn capture_file(frames: &[Vec<u8>]) -> Vec<u8> {
    let word = |number: u32| number.to_ne_bytes();
    let mut file: Vec<u8> = FILE_HEADER.into_iter().flat_map(word).collect();
    for (frame, second) in frames.iter().zip(0_u32..) {
        let length = u32::try_from(frame.len()).unwrap_or(0);
        file.extend([second, 0, length, length].into_iter().flat_map(word));
        file.extend_from_slice(frame);
    }
    file
}

/// The frame without the last `count` bytes of the IPv4 packet in it, whose header is made good again.
pub fn shortened(frame: &[u8], count: usize) -> Vec<u8> {
    let mut frame = frame[..frame.len() - count].to_vec();
    let length = u16::try_from(frame.len() - IP_AT).unwrap_or(0);
    frame[IP_AT + 2..IP_AT + 4].copy_from_slice(&length.to_be_bytes());
    frame[IP_AT + 10..IP_AT + 12].fill(0);
    let header = &frame[IP_AT..IP_AT + 20];
    let sum: u32 = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    frame[IP_AT + 10..IP_AT + 12].copy_from_slice(&sum.to_be_bytes());
    frame
}
