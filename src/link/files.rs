//! The files that the guard has read for the worker, as they go over their link.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What all of them may cost together in [`HandedFiles::cost`]: the line that they make stays below the longest.
pub const COST_MAX: usize = 60 << 20;

/// From here on files are [large](HandedFiles::are_large): a tenth of a list of a million networks.
const LARGE_BYTES: usize = 1 << 20;

/// Files by their paths. Secrets are among them: `Debug` shows their lengths alone.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedFiles(pub BTreeMap<PathBuf, FileContent>);

/// What a file holds. A copy shares it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct FileContent(pub Arc<[u8]>);

/// What a file holds, as it is written in JSON: text, as nearly all of them are, as a string.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Bytes(Vec<u8>),
}

impl HandedFiles {
    /// What a file holds, when it is among them.
    pub fn get(&self, path: &Path) -> Option<Arc<[u8]>> {
        self.0.get(path).map(|content| Arc::clone(&content.0))
    }

    /// Whether they are so large that what was made of them on the way is worth giving back.
    pub fn are_large(&self) -> bool {
        self.0.values().map(|content| content.0.len()).sum::<usize>() >= LARGE_BYTES
    }

    /// The longest that they may become in JSON, in bytes.
    pub fn cost(&self) -> usize {
        self.0.values().map(FileContent::cost).sum()
    }
}

impl FileContent {
    fn text(&self) -> Option<&str> {
        let has_short_escape = |character: char| !character.is_control() || matches!(character, '\n' | '\r' | '\t');
        std::str::from_utf8(&self.0).ok().filter(|text| text.chars().all(has_short_escape))
    }

    fn cost(&self) -> usize {
        // A character of a text takes at most two, and any byte of a list three digits and a comma.
        self.0.len() * if self.text().is_some() { 2 } else { 4 }
    }
}

impl From<FileContent> for Written {
    fn from(content: FileContent) -> Self {
        content.text().map_or_else(|| Self::Bytes(content.0.to_vec()), |text| Self::Text(text.to_owned()))
    }
}

impl From<Written> for FileContent {
    fn from(written: Written) -> Self {
        match written {
            Written::Text(text) => Self(text.into_bytes().into()),
            Written::Bytes(bytes) => Self(bytes.into()),
        }
    }
}

impl fmt::Debug for HandedFiles {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.0.iter().map(|(path, content)| (path, content.0.len()))).finish()
    }
}

impl fmt::Debug for FileContent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(entries: &[(&str, &[u8])]) -> HandedFiles {
        HandedFiles(entries.iter().map(|(path, bytes)| (PathBuf::from(path), FileContent((*bytes).into()))).collect())
    }

    #[test]
    fn texts_and_bytes_come_back_as_they_were() {
        let files = files(&[("/a", b"text \"q\"\n\xc3\xa4"), ("/b", b"\xff\x00"), ("/c", b"a\0b"), ("/d", b"")]);
        let json = serde_json::to_string(&files).unwrap();
        assert_eq!(json, r#"{"/a":"text \"q\"\nä","/b":[255,0],"/c":[97,0,98],"/d":""}"#);
        assert_eq!(serde_json::from_str::<HandedFiles>(&json).unwrap(), files);
        assert_eq!(files.get(Path::new("/b")).as_deref(), Some(&b"\xff\x00"[..]));
        assert_eq!(files.get(Path::new("/x")), None);
    }

    #[test]
    fn a_mebibyte_in_all_is_large() {
        let half = vec![b'x'; 1 << 19];
        assert!(files(&[("/a", &half), ("/b", &half)]).are_large());
        assert!(!files(&[("/a", &half), ("/b", &half[1..])]).are_large());
    }

    #[test]
    fn no_content_is_shown() {
        assert_eq!(format!("{:?}", files(&[("/a.key", b"secret")])), r#"{"/a.key": 6}"#);
    }
}
