//! A thread of its own for connections, health checks, sign-in and stop signals: they stay
//! responsive however busy the worker threads are.

use std::io;
use std::time::Duration;

use convergio_process::exit;
use tokio::runtime::{Builder, Handle};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};

/// Maximum time from the first stop signal to the end of the process. Work under way may be cut
/// off: what was acknowledged is in the log.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// The thread's runtime; dropping this value ends both.
pub struct FrontRuntime {
    handle: Handle,
    _end: oneshot::Sender<()>,
}

/// Stop signals that the process has received.
pub struct StopSignals(watch::Receiver<u32>);

impl FrontRuntime {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system refuses another thread.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let run_thread = move || {
            // Nothing is ever sent: the receiver wakes when the sender is dropped.
            let _end = runtime.block_on(stopped);
            runtime.shutdown_background();
        };
        std::thread::Builder::new().name("front".to_owned()).spawn(run_thread)?;
        Ok(Self { handle, _end: stop })
    }

    /// Handle to spawn tasks on the thread.
    pub fn runtime_handle(&self) -> &Handle {
        &self.handle
    }

    /// Listens for SIGTERM and SIGINT from now on. After the first one the process ends within
    /// [`SHUTDOWN_TIMEOUT`].
    ///
    /// # Errors
    /// The signal handlers cannot be installed.
    pub fn stop_signals(&self) -> io::Result<StopSignals> {
        let _within = self.handle.enter();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (count, signals) = watch::channel(0);
        self.handle.spawn(async move {
            loop {
                tokio::select! {
                    Some(()) = terminate.recv() => {}
                    Some(()) = interrupt.recv() => {}
                    else => break,
                }
                count.send_modify(|count| *count += 1);
                if *count.borrow() == 1 {
                    tokio::spawn(exit_after_timeout());
                }
            }
        });
        Ok(StopSignals(signals))
    }
}

impl StopSignals {
    /// Waits for the next stop signal; never returns if signals are no longer listened to.
    pub async fn next_signal(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn exit_after_timeout() {
    tokio::time::sleep(SHUTDOWN_TIMEOUT).await;
    let limit_s = SHUTDOWN_TIMEOUT.as_secs();
    tracing::error!(limit_s, "the process did not stop in time and is ended");
    std::process::exit(i32::from(exit::UNAVAILABLE));
}
