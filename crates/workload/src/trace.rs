//! Reading recorded traces: a stream of (object, value size), in the order the cache was asked.
//!
//! Invariant: a reader yields whole requests only, and the first error is the last item; every error names the byte
//! offset in the (uncompressed) trace. Zstandard is recognised by its magic number, not by the file's name. Absent:
//! timestamps and operations other than a read-through get, which none of the shipped traces record.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use crate::{Error, ErrorKind};

/// Largest value size a trace may ask for: 512 MiB, the largest string a Redis server takes.
pub const MAX_VALUE_BYTES: u32 = 512 * 1024 * 1024;

/// Longest line of a text trace, in bytes; longer means that the file is something else.
const MAX_LINE_BYTES: u64 = 4096;

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// One request of a trace: somebody asked the cache for this object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which object, numbered as the trace numbers them.
    pub object: u64,
    /// The size of the object's value in bytes.
    pub value_bytes: u32,
}

/// What a format found at its place in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A request, and how many bytes it took.
    Request(Request, u64),
    /// Bytes that hold no request (a comment, a heading), and how many.
    Skip(u64),
    /// The orderly end of the trace.
    End,
}

/// Why a format could not make sense of what it read.
pub(crate) type DecodeResult = Result<Decoded, Error>;

/// A way of writing a trace down.
pub trait TraceFormat: Send {
    /// The format's name, for error messages.
    fn name(&self) -> &'static str;

    /// Reads the next request; `offset` is where `input` stands, for error messages.
    fn decode(&mut self, input: &mut dyn BufRead, offset: u64) -> DecodeResult;
}

/// Two little-endian `u32` a request: object number, value size. What `data/twitter_cluster52.u32pairs.zst` is in.
#[derive(Clone, Copy, Debug, Default)]
pub struct U32Pairs;

impl TraceFormat for U32Pairs {
    fn name(&self) -> &'static str {
        "u32pairs"
    }

    fn decode(&mut self, input: &mut dyn BufRead, offset: u64) -> DecodeResult {
        let mut pair = [0u8; 8];
        match read_full(input, &mut pair).map_err(|error| unreadable(offset, error))? {
            0 => return Ok(Decoded::End),
            8 => {}
            partial => {
                return Err(Error::new(
                    ErrorKind::Truncated,
                    format!(
                        "the trace ends inside the request at byte {offset}: {partial} of 8 bytes are there; fetch the file again"
                    ),
                ));
            }
        }
        // Little endian: the object number is the low half, the size the high half.
        let pair = u64::from_le_bytes(pair);
        let object = pair & u64::from(u32::MAX);
        let value_bytes = checked_size(pair >> 32, offset)?;
        Ok(Decoded::Request(Request { object, value_bytes }, 8))
    }
}

/// One request a line, `object,size` in decimal; empty lines and lines that start with `#` are skipped.
#[derive(Clone, Debug, Default)]
pub struct CsvPairs {
    line: Vec<u8>,
}

impl TraceFormat for CsvPairs {
    fn name(&self) -> &'static str {
        "csv"
    }

    fn decode(&mut self, input: &mut dyn BufRead, offset: u64) -> DecodeResult {
        self.line.clear();
        let taken = input
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut self.line)
            .map_err(|error| unreadable(offset, error))? as u64;
        if taken == 0 {
            return Ok(Decoded::End);
        }
        let malformed = |what: &str| {
            Error::new(
                ErrorKind::Malformed,
                format!("the line at byte {offset} {what}; each line must be OBJECT,SIZE in decimal"),
            )
        };
        if taken == MAX_LINE_BYTES && !self.line.ends_with(b"\n") {
            return Err(malformed("is longer than 4096 bytes"));
        }
        let line = std::str::from_utf8(&self.line).map_err(|_| malformed("is not text"))?.trim();
        if line.is_empty() || line.starts_with('#') {
            return Ok(Decoded::Skip(taken));
        }
        let (object, size) = line.split_once(',').ok_or_else(|| malformed("has no comma"))?;
        let object = object.trim().parse().map_err(|_| malformed("has no object number"))?;
        let size = size.trim().parse().map_err(|_| malformed("has no size"))?;
        let value_bytes = checked_size(size, offset)?;
        Ok(Decoded::Request(Request { object, value_bytes }, taken))
    }
}

/// Streams the requests of a trace. After an error it yields nothing more.
pub struct TraceReader {
    input: Box<dyn BufRead + Send>,
    format: Box<dyn TraceFormat>,
    offset: u64,
    finished: bool,
}

impl TraceReader {
    /// Reads `format` from `input`, decompressing when `input` starts as a Zstandard frame.
    pub fn new(input: impl Read + Send + 'static, format: impl TraceFormat + 'static) -> Result<Self, Error> {
        let mut input = BufReader::with_capacity(128 * 1024, input);
        let compressed = input.fill_buf().map_err(|error| unreadable(0, error))?.starts_with(&ZSTD_MAGIC);
        let input: Box<dyn BufRead + Send> = if compressed {
            let decoder =
                zstd::stream::read::Decoder::with_buffer(input).map_err(|error| unreadable(0, error))?;
            Box::new(BufReader::with_capacity(128 * 1024, decoder))
        } else {
            Box::new(input)
        };
        Ok(Self { input, format: Box::new(format), offset: 0, finished: false })
    }

    /// How many bytes of the uncompressed trace have been read.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

impl std::fmt::Debug for TraceReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TraceReader")
            .field("format", &self.format.name())
            .field("offset", &self.offset)
            .field("finished", &self.finished)
            .finish_non_exhaustive()
    }
}

impl Iterator for TraceReader {
    type Item = Result<Request, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.finished {
            match self.format.decode(&mut *self.input, self.offset) {
                Ok(Decoded::Request(request, taken)) => {
                    self.offset += taken;
                    return Some(Ok(request));
                }
                Ok(Decoded::Skip(taken)) => self.offset += taken,
                Ok(Decoded::End) => self.finished = true,
                Err(error) => {
                    self.finished = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

/// Opens a trace file, choosing the format by its name: `.csv` or `.txt` are text, everything else pairs of `u32`; a
/// `.zst` ending is looked through.
pub fn open_trace(path: &Path) -> Result<TraceReader, Error> {
    let file = File::open(path).map_err(|error| {
        Error::new(ErrorKind::Io, format!("cannot open the trace {}", path.display())).caused_by(error)
    })?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let name = name.strip_suffix(".zst").unwrap_or(&name);
    let is_text = Path::new(name).extension().is_some_and(|ending| ending == "csv" || ending == "txt");
    let reader =
        if is_text { TraceReader::new(file, CsvPairs::default()) } else { TraceReader::new(file, U32Pairs) };
    reader.map_err(|error| Error::new(error.kind(), path.display().to_string()).caused_by(error))
}

/// Fills `buffer` as far as the input goes and says how far that was.
fn read_full(input: &mut dyn BufRead, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn checked_size(size: u64, offset: u64) -> Result<u32, Error> {
    u32::try_from(size).ok().filter(|size| *size <= MAX_VALUE_BYTES).ok_or_else(|| {
        Error::new(
            ErrorKind::Malformed,
            format!(
                "the request at byte {offset} has a value of {size} bytes, more than 512 MiB; is this really a trace in this format?"
            ),
        )
    })
}

fn unreadable(offset: u64, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::UnexpectedEof => ErrorKind::Truncated,
        // What the decompressor says of damaged input.
        io::ErrorKind::Other | io::ErrorKind::InvalidData => ErrorKind::Malformed,
        _ => ErrorKind::Io,
    };
    Error::new(kind, format!("the trace cannot be read after byte {offset} of its uncompressed form"))
        .caused_by(error)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn pairs(requests: &[(u32, u32)]) -> Vec<u8> {
        requests.iter().flat_map(|(o, s)| [o.to_le_bytes(), s.to_le_bytes()].concat()).collect()
    }

    fn read_all(bytes: Vec<u8>) -> Vec<Result<Request, Error>> {
        TraceReader::new(Cursor::new(bytes), U32Pairs).unwrap().collect()
    }

    #[test]
    fn plain_and_compressed_pairs_read_alike() {
        let plain = pairs(&[(7, 100), (8, 0), (7, 100)]);
        let packed = zstd::encode_all(&plain[..], 3).unwrap();
        for bytes in [plain, packed] {
            let requests: Vec<_> = read_all(bytes).into_iter().map(Result::unwrap).collect();
            assert_eq!(requests.len(), 3);
            assert_eq!(requests[2], Request { object: 7, value_bytes: 100 });
        }
    }

    #[test]
    fn half_a_request_is_an_error_that_names_its_offset_and_ends_the_trace() {
        let mut bytes = pairs(&[(1, 2)]);
        bytes.extend([1, 2, 3]);
        let items = read_all(bytes);
        assert_eq!(items.len(), 2);
        let error = items[1].as_ref().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Truncated);
        assert!(error.to_string().contains("byte 8"), "{error}");
    }

    #[test]
    fn absurd_value_size_is_refused_with_its_offset() {
        let error = read_all(pairs(&[(1, 2), (3, u32::MAX)])).pop().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed);
        assert!(error.to_string().contains("byte 8"), "{error}");
    }

    #[test]
    fn cut_compressed_file_is_an_error_not_a_short_trace() {
        let mut packed = zstd::encode_all(&pairs(&vec![(1, 2); 10_000])[..], 3).unwrap();
        packed.truncate(packed.len() - 3);
        let last = read_all(packed).pop().unwrap();
        assert!(matches!(last.unwrap_err().kind(), ErrorKind::Truncated | ErrorKind::Malformed));
    }

    #[test]
    fn csv_skips_comments_and_names_the_bad_line() {
        let text = b"# object,size\n1,10\n\n 2 , 20 \nnonsense\n3,30\n".to_vec();
        let items: Vec<_> = TraceReader::new(Cursor::new(text), CsvPairs::default()).unwrap().collect();
        assert_eq!(items.len(), 3);
        assert_eq!(*items[1].as_ref().unwrap(), Request { object: 2, value_bytes: 20 });
        let error = items[2].as_ref().unwrap_err();
        assert!(error.to_string().contains("byte 29"), "{error}");
    }

    #[test]
    fn missing_file_is_named_in_the_error() {
        let error = open_trace(Path::new("/nowhere/at/all.zst")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("/nowhere/at/all.zst"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic_or_run_on(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), packed: bool) {
            let mut bytes = bytes;
            if packed {
                bytes.splice(0..0, ZSTD_MAGIC);
            }
            let length = bytes.len();
            if let Ok(reader) = TraceReader::new(Cursor::new(bytes.clone()), U32Pairs) {
                proptest::prop_assert!(reader.take(100_000).count() <= 100_000);
            }
            if let Ok(reader) = TraceReader::new(Cursor::new(bytes), CsvPairs::default()) && !packed {
                proptest::prop_assert!(reader.count() <= length + 1);
            }
        }
    }
}
