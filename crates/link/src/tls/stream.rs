//! A TLS connection that remembers why it ended.
//!
//! With TLS 1.3 a server looks at our certificate after we have ended our half of the handshake, so its refusal comes in place of its
//! first reply, and whoever reads replies only sees that there is none. Deliberately absent: what the words mean.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Why reading ended, once it has.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastWords(Arc<Mutex<Option<Arc<io::Error>>>>);

impl LastWords {
    pub(crate) fn heard(&self) -> Option<Arc<io::Error>> {
        self.0.lock().clone()
    }
}

pub(crate) struct TlsStream {
    inner: tokio_rustls::client::TlsStream<TcpStream>,
    last_words: LastWords,
}

impl TlsStream {
    pub(super) fn new(inner: tokio_rustls::client::TlsStream<TcpStream>) -> Self {
        Self { inner, last_words: LastWords::default() }
    }

    pub(crate) fn last_words(&self) -> LastWords {
        self.last_words.clone()
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = polled {
            let error = Arc::new(error);
            self.last_words.0.lock().get_or_insert_with(|| Arc::clone(&error));
            return Poll::Ready(Err(io::Error::new(error.kind(), error)));
        }
        polled
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
