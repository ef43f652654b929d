//! New certificates while the server runs.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::files::{Stamp, TlsError, TlsFiles};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The certificates that new connections get.
pub(crate) struct Certificates {
    files: TlsFiles,
    /// Of the files when they were last read, whether or not they could be used.
    seen: Mutex<Stamp>,
    current: ArcSwap<ServerConfig>,
}

impl Certificates {
    pub(crate) fn load(files: TlsFiles) -> Result<Arc<Self>, TlsError> {
        // Before reading: what changes from here on is read again.
        let seen = files.stamp();
        let current = files.read()?;
        files.warn_of_readers();
        Ok(Arc::new(Self { files, seen: Mutex::new(seen), current: ArcSwap::from_pointee(current) }))
    }

    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Takes over what the files become, for as long as it runs: when they change, and on SIGHUP.
    pub(crate) fn watch(self: Arc<Self>) -> io::Result<impl Future<Output = ()>> {
        let mut hangups = signal(SignalKind::hangup())?;
        Ok(async move {
            loop {
                let asked = next_look(&mut hangups).await;
                let certificates = Arc::clone(&self);
                // Files may be on a disk that takes its time.
                let _ = tokio::task::spawn_blocking(move || certificates.look(asked)).await;
            }
        })
    }

    fn look(&self, asked: bool) {
        let stamp = self.files.stamp();
        let mut seen = self.seen.lock();
        if *seen == stamp && !asked {
            return;
        }
        *seen = stamp;
        match self.files.read() {
            Ok(new) => {
                self.files.warn_of_readers();
                self.current.store(Arc::new(new));
                tracing::info!("new connections get the certificate as it is in its files now");
            }
            Err(error) => tracing::error!("the new certificate cannot be used, the old one stays: {error}"),
        }
    }
}

/// Waits for the time to look; whether somebody has asked for it.
async fn next_look(hangups: &mut Signal) -> bool {
    tokio::select! {
        () = tokio::time::sleep(LOOK) => false,
        hangup = hangups.recv() => hangup.is_some(),
    }
}
