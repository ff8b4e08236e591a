//! A clock that wakes on time: the runtime's own timers count whole milliseconds.

use std::io;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::net::unix::pipe::Receiver;

/// A timer of the kernel.
#[derive(Debug)]
pub(super) struct Alarm {
    /// No pipe, but like one it becomes readable, which is all that is asked of it.
    fd: Receiver,
}

impl Alarm {
    /// # Errors
    /// The kernel has no more descriptors.
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self {
            fd: Receiver::from_owned_fd_unchecked(fd)?,
        })
    }

    /// Waits until `at`; at once when it has passed, or when the kernel refuses the timer.
    pub(super) async fn until(&self, at: Instant) {
        loop {
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() || self.set(left).is_err() {
                return;
            }
            // Setting the timer anew has taken back any earlier ringing, so that it need not be
            // read; a stale readiness goes round once more.
            if self.fd.readable().await.is_err() {
                return;
            }
            // Saying that there is nothing to read is how the runtime is told to wait again.
            let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
            drop(self.fd.try_io(nothing));
        }
    }

    fn set(&self, after: Duration) -> io::Result<()> {
        let once = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: Timespec {
                tv_sec: after.as_secs().cast_signed(),
                tv_nsec: after.subsec_nanos().into(),
            },
        };
        timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }
}
