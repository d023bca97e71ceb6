//! The workers' clock, and the few things the standard library has no words for.

use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::Instant;

/// What time it is.
pub(super) fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the driver is where time comes from")]
    Instant::now()
}

/// Sleeps until then; returns at once when it has passed. The deadline is absolute, so no error adds up.
pub(super) fn sleep_until(deadline: Instant) {
    let left = deadline.saturating_duration_since(now());
    if !left.is_zero() {
        #[expect(clippy::disallowed_methods, reason = "waiting for the next slot is the driver's work")]
        std::thread::sleep(left);
    }
}

/// Keeps the calling thread on one core. Without effect where the system refuses.
#[expect(unsafe_code, reason = "the standard library cannot set a thread's cores")]
pub(super) fn pin(core: usize) {
    // SAFETY: a zeroed cpu_set_t is an empty set; CPU_SET stays within it for the checked number; the call reads the
    // set during the call only.
    let failed = core >= libc::CPU_SETSIZE as usize
        || unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(core, &mut set);
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) != 0
        };
    if failed {
        tracing::warn!(core, "a media worker could not be kept on its core");
    }
}

/// Bounds what the system keeps for a socket nobody reads in time. Without effect where it refuses.
#[expect(unsafe_code, reason = "the standard library cannot set the size of a receive buffer")]
pub(super) fn bound_receive_buffer(socket: &UdpSocket, bytes: libc::c_int) {
    // SAFETY: the descriptor is open for as long as the borrow; the value is an int of the stated size.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUF,
            (&raw const bytes).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        );
    }
}
