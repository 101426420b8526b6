//! `baton keygen`: makes the key that both nodes of a pair share.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};

use crate::config::PAIR_KEY_LEN_BYTES;

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

/// 64 hex digits and a newline.
fn new_key_line() -> anyhow::Result<String> {
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
    match write_new(path, line) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            bail!(
                "{} is there already; the other node may use that key. To replace it on both, add --force",
                path.display()
            );
        }
        Err(error) => return Err(failed_to_write(path, error)),
    }
    sync_directory(path)
}

/// Puts a new file in the place of an old one, so that whoever reads it finds either the old key or the new one whole.
fn replace(path: &Path, line: &str) -> anyhow::Result<()> {
    let name = path.file_name().with_context(|| format!("{} is not the name of a file", path.display()))?;
    let temporary = path.with_file_name(format!(".{}.{:016x}", name.to_string_lossy(), fastrand::u64(..)));
    write_new(&temporary, line).map_err(|error| failed_to_write(&temporary, error))?;
    if let Err(error) = fs::rename(&temporary, path) {
        // A second failure would add nothing to the first.
        let _ = fs::remove_file(&temporary);
        return Err(error).with_context(|| format!("failed to replace {}", path.display()));
    }
    sync_directory(path)
}

/// Creates the file with mode 0600 from its first moment: one that is narrowed later can be opened in between.
fn write_new(path: &Path, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(line.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        // Half a key would be refused later and keep the next keygen from writing; this file is our own.
        let _ = fs::remove_file(path);
    }
    written
}

fn failed_to_write(path: &Path, error: io::Error) -> anyhow::Error {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "; make its directory first, or choose another place with --out FILE",
        io::ErrorKind::PermissionDenied => "; run as root, or choose another place with --out FILE",
        _ => "",
    };
    anyhow!("failed to write {}: {error}{remedy}", path.display())
}

/// Without it the file's name can be gone after a power failure, though its content was written.
fn sync_directory(path: &Path) -> anyhow::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("failed to write {} to disk", directory.display()))
}
