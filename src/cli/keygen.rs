//! `baton keygen`: makes the key that both nodes of a pair share.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};

use super::staged::{Staged, failed_to_write, sync_directory};
use crate::config::PAIR_KEY_LEN_BYTES;

/// What the file of a key may be: open to its owner alone.
pub(super) const KEY_MODE: u32 = 0o600;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where the key goes; `-` is stdout
    #[arg(long, value_name = "FILE", default_value = "/etc/baton/pair.key")]
    out: PathBuf,
    /// Replace a key that is there
    #[arg(long)]
    force: bool,
}

/// Makes a key and says what to do with it.
///
/// # Errors
/// When the file is there already (without `--force`) or cannot be written. A key that is there is then as it was.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let line = new_key_line()?;
    if arguments.out == Path::new("-") {
        return super::answer(&line).context("failed to print the key");
    }
    // Absolute, because the configuration's relative paths begin elsewhere.
    let path = &std::path::absolute(&arguments.out).context("failed to find the current directory")?;
    if arguments.force {
        replace(path, &line)?
    } else {
        create(path, &line)?
    }
    let shown = path.display();
    let answer = format!(
        "wrote a new pair key to {shown}\n\
         next: copy it to the same place on the other node, readable by its owner alone, for example\n  \
         scp -p {shown} root@OTHER-NODE:{shown}\n\
         and name it in the configuration of both: [pair] key_file = \"{shown}\"\n"
    );
    super::answer(&answer).context("the key is written, but failed to say so")
}

/// A new key: 64 hex digits and a newline.
///
/// # Errors
/// When the system gives no random bytes.
pub(super) fn new_key_line() -> anyhow::Result<String> {
    let mut key = [0_u8; PAIR_KEY_LEN_BYTES];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| anyhow!("the system gave no random bytes"))?;
    let mut line = String::with_capacity(PAIR_KEY_LEN_BYTES * 2 + 1);
    for byte in key {
        // Writing to a String cannot fail.
        let _ = write!(line, "{byte:02x}");
    }
    line.push('\n');
    Ok(line)
}

/// Writes a file that was not there.
fn create(path: &Path, line: &str) -> anyhow::Result<()> {
    let created = Staged::write(path, line, KEY_MODE).and_then(Staged::create);
    match created {
        Ok(()) => sync_directory(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            bail!(
                "{} is there already; the other node may use that key. To replace it on both, add --force",
                path.display()
            );
        }
        Err(error) => Err(failed_to_write(path, &error, "--out")),
    }
}

/// Puts a new file in the place of an old one.
fn replace(path: &Path, line: &str) -> anyhow::Result<()> {
    let replaced = Staged::write(path, line, KEY_MODE).and_then(Staged::replace);
    replaced.map_err(|error| failed_to_write(path, &error, "--out"))?;
    sync_directory(path)
}
