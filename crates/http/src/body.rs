//! Bodies: buffered up to a bound, and passed on with what was read already where that is exceeded.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer: from the cache, or the service's own.
pub type CacheBody = UnsyncBoxBody<Bytes, BoxError>;

pub(crate) fn whole(bytes: Bytes) -> CacheBody {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn boxed<B>(body: B) -> CacheBody
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).boxed_unsync()
}

/// What reading a body gave.
pub(crate) enum Buffered {
    Whole(Bytes),
    /// It is larger than the bound, takes longer to come, or broke off: as it would have been read.
    Not(CacheBody),
}

/// Reads at most so many bytes, for at most so long. Trailers are left out.
pub(crate) async fn buffer(mut body: CacheBody, max: usize, wait: Duration) -> Buffered {
    if body.size_hint().lower() > max as u64 {
        return Buffered::Not(body);
    }
    let (mut read, mut size) = (VecDeque::new(), 0);
    let mut waited = pin!(tokio::time::sleep(wait));
    loop {
        let frame = tokio::select! {
            biased;
            frame = body.frame() => frame,
            () = &mut waited => {
                return Buffered::Not(Prefixed { read, broken: None, rest: body }.boxed_unsync());
            }
        };
        match frame {
            None => break,
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                size += data.len();
                read.push_back(data);
                if size > max {
                    return Buffered::Not(Prefixed { read, broken: None, rest: body }.boxed_unsync());
                }
            }
            Some(Err(error)) => {
                return Buffered::Not(Prefixed { read, broken: Some(error), rest: body }.boxed_unsync());
            }
        }
    }
    if read.len() == 1
        && let Some(one) = read.pop_front()
    {
        return Buffered::Whole(one);
    }
    let mut bytes = Vec::with_capacity(size);
    for part in read {
        bytes.extend_from_slice(&part);
    }
    Buffered::Whole(bytes.into())
}

/// A body of which something has been read.
struct Prefixed {
    read: VecDeque<Bytes>,
    broken: Option<BoxError>,
    rest: CacheBody,
}

impl Body for Prefixed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(read) = self.read.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(read))));
        }
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        Pin::new(&mut self.rest).poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.read.iter().map(|part| part.len() as u64).sum::<u64>();
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(read + rest.lower());
        if let Some(upper) = rest.upper() {
            hint.set_upper(read + upper);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn a_body_beyond_the_bound_is_passed_on_whole() {
        let frames = || {
            let parts = VecDeque::from(["ab", "cd", "ef"].map(|part| Bytes::from_static(part.as_bytes())));
            Prefixed { read: parts, broken: None, rest: whole(Bytes::from_static(b"gh")) }.boxed_unsync()
        };
        let Buffered::Whole(bytes) = buffer(frames(), 8, LONG).await else { panic!("8 bytes are 8 bytes") };
        assert_eq!(bytes, "abcdefgh");
        let Buffered::Not(body) = buffer(frames(), 7, LONG).await else { panic!("8 bytes are more than 7") };
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abcdefgh");
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_breaks_off_where_it_did() {
        let broken = || Prefixed {
            read: VecDeque::from([Bytes::from_static(b"ab")]),
            broken: Some("the disk is gone".into()),
            rest: whole(Bytes::new()),
        };
        let Buffered::Not(mut body) = buffer(broken().boxed_unsync(), 8, LONG).await else {
            panic!("it broke")
        };
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "ab");
        assert_eq!(body.frame().await.unwrap().unwrap_err().to_string(), "the disk is gone");
    }
}
