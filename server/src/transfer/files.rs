//! Files: what format they have, and by what they are known again.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Formats of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum FileFormat {
    /// Parquet.
    Parquet,
    /// Comma separated, with a header line.
    Csv,
    /// An Arrow IPC file; one that is read may be a stream too.
    Arrow,
    /// An Arrow IPC stream.
    ArrowStream,
}

/// A file's format: as it is said, else by the file's name.
pub(super) fn format_of(path: &Path, said: Option<FileFormat>) -> Result<FileFormat, String> {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    let by_name = match extension.as_deref() {
        Some("parquet" | "pq") => Some(FileFormat::Parquet),
        Some("csv") => Some(FileFormat::Csv),
        Some("arrow" | "ipc" | "feather") => Some(FileFormat::Arrow),
        Some("arrows") => Some(FileFormat::ArrowStream),
        _ => None,
    };
    said.or(by_name).ok_or_else(|| {
        "what is in it? Its name does not end in .parquet, .csv, .arrow or .arrows: say --format".to_owned()
    })
}

/// What a file is known by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// Absolute, without links.
    pub(super) path: PathBuf,
    pub(super) size: u64,
    /// When it was last changed.
    pub(super) modified_ns: i64,
    /// BLAKE3 of its bytes.
    pub(super) checksum: String,
}

impl Identity {
    /// What a file is now; reads all of it.
    pub(super) fn of(path: &Path) -> Result<Self, String> {
        let unreadable = |error| format!("cannot be read: {error}");
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err("it is no file".to_owned());
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(file).map_err(unreadable)?;
        Ok(Self {
            path: path.to_owned(),
            size: metadata.size(),
            modified_ns: modified_ns(&metadata),
            checksum: hasher.finalize().to_hex().to_string(),
        })
    }

    /// Whether the file looks as it did, without a look at its bytes.
    pub(super) fn looks_the_same(&self) -> Result<bool, String> {
        let metadata = std::fs::metadata(&self.path);
        let metadata = metadata.map_err(|error| format!("cannot be read: {error}"))?;
        Ok(metadata.size() == self.size && modified_ns(&metadata) == self.modified_ns)
    }

    /// Whether the file holds the same bytes as it did. One that was copied or touched does.
    pub(super) fn is_unchanged(&self) -> Result<bool, String> {
        Ok(self.looks_the_same()? || Self::of(&self.path)?.checksum == self.checksum)
    }
}

fn modified_ns(metadata: &Metadata) -> i64 {
    metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_by_name() {
        let of = |name: &str| format_of(Path::new(name), None);
        assert_eq!(of("a.b/x.PARQUET").unwrap(), FileFormat::Parquet);
        assert_eq!(of("x.csv").unwrap(), FileFormat::Csv);
        assert_eq!(of("x.feather").unwrap(), FileFormat::Arrow);
        assert_eq!(of("x.arrows").unwrap(), FileFormat::ArrowStream);
        for unknown in ["x", "x.csv.gz", ".csv", "csv"] {
            assert!(of(unknown).unwrap_err().contains("--format"), "{unknown}");
        }
        assert_eq!(format_of(Path::new("x.txt"), Some(FileFormat::Csv)).unwrap(), FileFormat::Csv);
    }

    #[test]
    fn a_file_is_known_again_by_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.csv");
        std::fs::write(&path, "a\n1\n").unwrap();
        let identity = Identity::of(&path).unwrap();
        assert!(identity.looks_the_same().unwrap());
        // Written anew, it has another time and the same bytes.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "a\n1\n").unwrap();
        assert!(identity.is_unchanged().unwrap());
        std::fs::write(&path, "a\n2\n\n").unwrap();
        assert!(!identity.is_unchanged().unwrap());
        assert!(Identity::of(dir.path()).unwrap_err().contains("no file"));
    }
}
