//! What the benchmarks ask of the kernel: datagrams with arrival times, cores, memory, time spent.

#![expect(unsafe_code, reason = "the standard library has no words for these")]

use std::collections::BTreeMap;
use std::io;
use std::mem::{size_of, zeroed};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

const BATCH: usize = 64;
/// Bytes for what the kernel says besides.
pub(crate) const CONTROL: usize = 64;

fn set(socket: &UdpSocket, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open during the call; the value is an int of the stated size.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A socket on the loopback whose datagrams carry the time they arrived, with room for a second of a thousand calls.
pub(crate) fn timestamped_socket() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    set(&socket, libc::SO_TIMESTAMPNS, 1)?;
    // Beyond the system's limit where that is allowed, up to it otherwise.
    set(&socket, libc::SO_RCVBUFFORCE, 64 << 20).or_else(|_| set(&socket, libc::SO_RCVBUF, 64 << 20))?;
    Ok(socket)
}

/// Room for a batch of datagrams.
pub(crate) struct Batch {
    bytes: Vec<[u8; 256]>,
    controls: Vec<[u64; CONTROL / 8]>,
    names: Vec<libc::sockaddr_in>,
}

impl Batch {
    pub(crate) fn new() -> Self {
        // SAFETY: an address of zeros is a valid value.
        let name = unsafe { zeroed() };
        Self {
            bytes: vec![[0; 256]; BATCH],
            controls: vec![[0; CONTROL / 8]; BATCH],
            names: vec![name; BATCH],
        }
    }

    /// Takes all that waits: sender's port and time of arrival of each.
    pub(crate) fn receive(&mut self, socket: &UdpSocket, mut arrived: impl FnMut(u16, u64)) {
        loop {
            let mut vectors: Vec<libc::iovec> = self
                .bytes
                .iter_mut()
                .map(|bytes| libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() })
                .collect();
            let mut headers: Vec<libc::mmsghdr> = (0..BATCH)
                .map(|i| {
                    // SAFETY: a header of zeros is a valid value.
                    let mut header: libc::mmsghdr = unsafe { zeroed() };
                    header.msg_hdr.msg_name = (&raw mut self.names[i]).cast();
                    header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
                    header.msg_hdr.msg_iov = &raw mut vectors[i];
                    header.msg_hdr.msg_iovlen = 1;
                    header.msg_hdr.msg_control = self.controls[i].as_mut_ptr().cast();
                    header.msg_hdr.msg_controllen = CONTROL as _;
                    header
                })
                .collect();
            // SAFETY: each header points to a name, a vector and a control buffer that outlive the call.
            let got = unsafe {
                let flags = libc::MSG_DONTWAIT as _;
                libc::recvmmsg(
                    socket.as_raw_fd(),
                    headers.as_mut_ptr(),
                    BATCH as _,
                    flags,
                    std::ptr::null_mut(),
                )
            };
            let got = usize::try_from(got).unwrap_or(0);
            for (header, name) in headers[..got].iter().zip(&self.names) {
                if let Some(nanos) = arrival(&header.msg_hdr) {
                    arrived(u16::from_be(name.sin_port), nanos);
                }
            }
            if got < BATCH {
                return;
            }
        }
    }
}

/// When the datagram of a header that the kernel has filled arrived; `None`: it does not say.
pub(crate) fn arrival(header: &libc::msghdr) -> Option<u64> {
    // SAFETY: the kernel has filled the control buffer the header points to; the macros stay within it.
    unsafe {
        let control = libc::CMSG_FIRSTHDR(header);
        if control.is_null() || (*control).cmsg_type != libc::SCM_TIMESTAMPNS {
            return None;
        }
        let time: libc::timespec = libc::CMSG_DATA(control).cast::<libc::timespec>().read_unaligned();
        Some(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    }
}

/// Keeps the calling thread on a core, if there is such a core.
pub(crate) fn pin(core: usize) {
    // SAFETY: an empty set of zeros, one core in it, read during the call.
    unsafe {
        let mut set: libc::cpu_set_t = zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}

/// The clock of the datagrams' times.
pub(crate) fn wall_nanos() -> u64 {
    // SAFETY: the call fills the value it is given.
    unsafe {
        let mut time: libc::timespec = zeroed();
        libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut time);
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }
}

/// As many open files as the system lets us have: two for each call.
pub(crate) fn raise_file_limit() {
    // SAFETY: both calls take the value by pointer during the call.
    unsafe {
        let mut limit: libc::rlimit = zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
}

/// Memory of a process, `self` or a number, that is really there.
pub(crate) fn resident_bytes(process: &str) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{process}/statm")).unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

/// Seconds each thread of a process, `self` or a number, has spent on a core, by its name.
pub(crate) fn thread_seconds(process: &str) -> BTreeMap<String, f64> {
    let mut seconds = BTreeMap::new();
    for task in std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
        let read = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let name = read("comm").trim().to_owned();
        // Nanoseconds on a core are the first number.
        let spent = read("schedstat").split(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
        *seconds.entry(name).or_insert(0.0) += spent / 1e9;
    }
    seconds
}
