//! A connection with its times: the head of a request must be there soon after its first byte (the first one soon
//! after the connection), and what is written must be taken. While a request is being answered nothing is expected
//! of the peer, and how long it may idle between requests is hyper's to watch. A time that has run out is an error
//! of the stream, which closes it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// The times of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// From a head's first byte to its last.
    pub(super) head: Duration,
    /// From an answer to the end of the next head.
    pub(super) idle: Duration,
    /// Without progress in writing.
    pub(super) stall: Duration,
}

/// The requests of one connection, as its service sees them.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    begun: AtomicU64,
    ended: AtomicU64,
    /// Another protocol is spoken: no head comes any more.
    switched: AtomicBool,
}

/// A request under way, until it is dropped.
pub(super) struct UnderWay(Requests);

impl Requests {
    /// A request's head is there.
    pub(super) fn begin(&self) -> UnderWay {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        UnderWay(self.clone())
    }

    /// The connection is another protocol's from here on, whose own times hold.
    pub(super) fn switch(&self) {
        self.0.switched.store(true, Ordering::Relaxed);
    }

    fn begun(&self) -> u64 {
        self.0.begun.load(Ordering::Relaxed)
    }

    fn is_busy(&self) -> bool {
        let switched = self.0.switched.load(Ordering::Relaxed);
        switched || self.begun() != self.0.ended.load(Ordering::Relaxed)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// A stream that keeps time.
pub(super) struct Paced<S> {
    stream: S,
    pace: Pace,
    requests: Requests,
    /// Requests that were known at the last look.
    known: u64,
    /// A head has begun to arrive.
    in_head: bool,
    /// When it must be there.
    reading: Pin<Box<Sleep>>,
    writing: Option<Pin<Box<Sleep>>>,
}

impl<S> Paced<S> {
    /// The first head is awaited from now on.
    pub(super) fn new(stream: S, pace: Pace, requests: Requests) -> Self {
        let reading = Box::pin(sleep_until(Instant::now() + pace.head));
        Self { stream, pace, requests, known: 0, in_head: true, reading, writing: None }
    }

    /// Notices that the head awaited was read.
    fn look(&mut self) {
        let begun = self.requests.begun();
        if begun != self.known {
            self.known = begun;
            self.in_head = false;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.look();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        if this.requests.is_busy() {
            return read;
        }
        if buf.filled().len() > before && !this.in_head {
            this.in_head = true;
            this.reading.as_mut().reset(Instant::now() + this.pace.head);
        }
        if read.is_pending() && this.in_head {
            ready!(this.reading.as_mut().poll(cx));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no request in time")));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> Paced<S> {
    /// Follows a write: progress ends the stall, none begins it.
    fn written<T>(&mut self, cx: &mut Context<'_>, wrote: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match wrote {
            Poll::Ready(done) => {
                self.writing = None;
                Poll::Ready(done)
            }
            Poll::Pending => {
                let stall = self.pace.stall;
                let timer = self.writing.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + stall)));
                ready!(timer.as_mut().poll(cx));
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the answer is not taken")))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.written(cx, wrote)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.written(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        this.written(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.written(cx, shut)
    }
}
