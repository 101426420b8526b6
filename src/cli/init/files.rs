//! The configuration and the key: both put in their places, or neither.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use rustix::fs::{Access, access};

use crate::config::PairKey;

use super::super::keygen::{KEY_MODE, new_key_line};
use super::super::staged::{Staged, directory_of, failed_to_write, sync_directory};

/// What the packages install, which nobody has edited.
const INSTALLED: &str = include_str!("../../../packaging/baton.toml");

/// The configuration holds no secret, and the service's user reads it.
const CONFIG_MODE: u32 = 0o644;

/// Former configurations that are kept.
const KEPT_MAX: u32 = 100;

/// Where both go, and what is there.
#[derive(Debug)]
pub(super) struct Files {
    config: PathBuf,
    key: PathBuf,
    has_config: bool,
    key_state: KeyState,
}

/// What is in the key's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyState {
    /// Nothing: one is made.
    Absent,
    /// A key, which the other node may have as well: it is used.
    Good,
    /// Something else, to be replaced.
    Unusable,
}

/// What was done.
#[derive(Debug)]
pub(super) struct Written {
    kept: Option<PathBuf>,
}

impl Files {
    /// Looks at both places. `force`: a configuration that somebody wrote is replaced, and a key that is none.
    ///
    /// # Errors
    /// What may not be replaced, or cannot be written.
    pub(super) fn look(config: &Path, key: Option<&Path>, force: bool) -> anyhow::Result<Self> {
        let absolute = |path: &Path| std::path::absolute(path).context("failed to find the current directory");
        let config = absolute(config)?;
        let key = key.map_or_else(|| Ok(config.with_file_name("pair.key")), absolute)?;
        for (file, flag) in [(&config, "--config"), (&key, "--key")] {
            access(directory_of(file), Access::WRITE_OK | Access::EXEC_OK)
                .map_err(|error| failed_to_write(file, &error.into(), flag))?;
        }
        let found = match fs::read_to_string(&config) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("failed to read {}", config.display())),
        };
        if found.as_deref().is_some_and(|text| text != INSTALLED) && !force {
            bail!(
                "{} is there already and is not as it was installed, so it stays. To replace it, add --force: it is \
                 kept beside the new one",
                config.display()
            );
        }
        let key_state = key_state(&key, force)?;
        Ok(Self { config, key, has_config: found.is_some(), key_state })
    }

    pub(super) fn config(&self) -> &Path {
        &self.config
    }

    pub(super) fn key(&self) -> &Path {
        &self.key
    }

    /// The key's place, for the configuration.
    ///
    /// # Errors
    /// When a configuration cannot say it.
    pub(super) fn key_text(&self) -> anyhow::Result<&str> {
        self.key.to_str().context("the key's path is no UTF-8: choose another one with --key FILE")
    }

    /// What will be written.
    pub(super) fn names(&self) -> String {
        match self.key_state {
            KeyState::Good => self.config.display().to_string(),
            KeyState::Absent | KeyState::Unusable => format!("{} and {}", self.config.display(), self.key.display()),
        }
    }

    /// Writes both. A configuration that is there is kept under another name.
    ///
    /// # Errors
    /// What the kernel says; then all is as it was.
    pub(super) fn write(&self, text: &str) -> anyhow::Result<Written> {
        let of_config = |error: io::Error| failed_to_write(&self.config, &error, "--config");
        let of_key = |error: io::Error| failed_to_write(&self.key, &error, "--key");
        // A full disk shows here, before anything is in its place.
        let config = Staged::write(&self.config, text, CONFIG_MODE).map_err(of_config)?;
        let key = match self.key_state {
            KeyState::Good => None,
            KeyState::Absent | KeyState::Unusable => {
                Some(Staged::write(&self.key, &new_key_line()?, KEY_MODE).map_err(of_key)?)
            }
        };
        let kept = if self.has_config { Some(self.keep().map_err(of_config)?) } else { None };
        let placed = match (key, self.key_state) {
            (Some(key), KeyState::Unusable) => key.replace(),
            (Some(key), _) => key.create(),
            (None, _) => Ok(()),
        };
        let placed = placed.map_err(of_key).and_then(|()| {
            let placed = if self.has_config { config.replace() } else { config.create() };
            placed.map_err(|error| {
                self.take_key_back();
                of_config(error)
            })
        });
        if let Err(error) = placed {
            kept.iter().for_each(|kept| drop(fs::remove_file(kept)));
            return Err(error);
        }
        sync_directory(&self.config)?;
        sync_directory(&self.key)?;
        Ok(Written { kept })
    }

    /// Gives the configuration that is there a second name; under its first one it is there until it is replaced.
    fn keep(&self) -> io::Result<PathBuf> {
        let name = self.config.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let names =
            std::iter::once(format!("{name}.bak")).chain((2..KEPT_MAX).map(|number| format!("{name}.bak{number}")));
        for name in names {
            let kept = self.config.with_file_name(name);
            match fs::hard_link(&self.config, &kept) {
                Ok(()) => return Ok(kept),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("there are too many former ones beside it"))
    }

    /// A new key without its configuration would be half of a set-up.
    fn take_key_back(&self) {
        if self.key_state == KeyState::Absent {
            // What has failed before is what is reported.
            let _ = fs::remove_file(&self.key);
        }
    }
}

impl Written {
    /// It in words.
    pub(super) fn text(&self, files: &Files) -> String {
        let mut text = format!("wrote {}\n", files.names());
        if let Some(kept) = &self.kept {
            text.push_str(&format!("the configuration before is {}\n", kept.display()));
        }
        if files.key_state == KeyState::Good {
            text.push_str(&format!("used the key that was there, {}\n", files.key.display()));
        }
        text
    }
}

fn key_state(key: &Path, force: bool) -> anyhow::Result<KeyState> {
    match (PairKey::load(key), key.symlink_metadata()) {
        (Ok(_), _) => Ok(KeyState::Good),
        (Err(_), Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(KeyState::Absent),
        (Err(_), Ok(metadata)) if force && metadata.is_file() => Ok(KeyState::Unusable),
        (Err(error), _) => {
            bail!("the key that is there cannot be used: {error}; {}, or add --force for a new one", error.remedy())
        }
    }
}
