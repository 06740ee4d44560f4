//! What a rewrite asks of the thread that writes the journal, which alone may touch the files of it.
//!
//! There is one rewrite at a time, so there is one of each request at most.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use mtcache_persistence::{AofFiles, AofWriter, Error, JournalBuffer, Lsn, NewBase, Rewrite};
use parking_lot::Mutex;

/// The requests that wait.
#[derive(Default)]
pub(crate) struct Desk {
    /// Whether nobody serves it any more.
    is_closed: AtomicBool,
    cut: Mutex<Option<Cut>>,
    request: Mutex<Option<Request>>,
    reader: Mutex<Option<mpsc::Sender<Result<AofFiles, Error>>>>,
}

enum Request {
    Finish(Rewrite, NewBase, mpsc::Sender<Result<Vec<String>, Error>>),
    Forget(Vec<String>),
}

/// A cut that the writer has not come to, and who wants to know what it makes of it.
struct Cut {
    at: Lsn,
    answer: mpsc::Sender<Result<Rewrite, Error>>,
}

impl Desk {
    /// From here on somebody serves it.
    pub(crate) fn open(&self) {
        self.is_closed.store(false, Ordering::Release);
    }

    /// From here on nobody does: who waits hears so.
    pub(crate) fn close(&self, buffer: &JournalBuffer) {
        self.is_closed.store(true, Ordering::Release);
        *self.request.lock() = None;
        *self.reader.lock() = None;
        if self.cut.lock().take().is_some() {
            buffer.forget_cut();
        }
    }

    /// Cuts the journal; the answer comes when the writer has come to the cut.
    pub(crate) fn mark_cut(&self, buffer: &JournalBuffer, answer: mpsc::Sender<Result<Rewrite, Error>>) {
        // Both under one lock: no cut is met without who waits for it.
        let mut cut = self.cut.lock();
        if self.is_closed.load(Ordering::Acquire) {
            // Who asks learns it by the end of the channel.
            return;
        }
        *cut = Some(Cut { at: buffer.mark_cut(), answer });
    }

    /// Begins the file for what comes after the cut at `at`; nothing if nobody waits for that cut any more.
    pub(crate) fn reach_cut(&self, at: Lsn, writer: &mut AofWriter) -> Option<Result<(), Error>> {
        let cut = self.cut.lock().take_if(|cut| cut.at == at)?;
        let rewrite = writer.begin_rewrite();
        let result = match &rewrite {
            Err(error) if writer.is_failed() => Err(Error::abandoned(&error.to_string())),
            _ => Ok(()),
        };
        // Who asked may have given up.
        let _ = cut.answer.send(rewrite);
        Some(result)
    }

    /// Refuses the cut that waits, if one does: the journal cannot be written.
    pub(crate) fn refuse_cut(&self, buffer: &JournalBuffer) {
        let mut cut = self.cut.lock();
        if let Some(cut) = cut.take() {
            buffer.forget_cut();
            let _ = cut.answer.send(Err(Error::abandoned("the journal cannot be written")));
        }
    }

    /// Has a rewrite ended, and waits for that.
    pub(crate) fn finish(&self, rewrite: Rewrite, base: NewBase) -> Result<Vec<String>, Error> {
        let (sender, receiver) = mpsc::channel();
        self.put(Request::Finish(rewrite, base, sender));
        receiver.recv().unwrap_or_else(|_| Err(Error::abandoned("the journal has ended")))
    }

    /// Asks for the files, once all that was journalled is in them.
    pub(crate) fn ask_for_files(&self) -> mpsc::Receiver<Result<AofFiles, Error>> {
        let (sender, receiver) = mpsc::channel();
        let mut reader = self.reader.lock();
        if !self.is_closed.load(Ordering::Acquire) {
            *reader = Some(sender);
        }
        drop(reader);
        receiver
    }

    /// Tells who has asked for the files.
    pub(crate) fn show_files(&self, writer: &AofWriter) {
        if let Some(reader) = self.reader.lock().take() {
            // Who asked may have given up.
            let _ = reader.send(writer.files());
        }
    }

    /// Has removed files forgotten, some time.
    pub(crate) fn forget(&self, removed: Vec<String>) {
        self.put(Request::Forget(removed));
    }

    /// Leaves a request; it is dropped, which its channel tells, if nobody is there.
    fn put(&self, request: Request) {
        let mut place = self.request.lock();
        if !self.is_closed.load(Ordering::Acquire) {
            *place = Some(request);
        }
    }

    /// Does what is asked for, on the thread of the writer; whether there was anything.
    pub(crate) fn serve(&self, writer: &mut AofWriter) -> bool {
        let Some(request) = self.request.lock().take() else { return false };
        match request {
            Request::Finish(rewrite, base, answer) => {
                // Who asked waits for the answer.
                let _ = answer.send(writer.finish_rewrite(&rewrite, &base));
            }
            Request::Forget(removed) => {
                if let Err(error) = writer.forget_history(&removed) {
                    tracing::warn!("replaced files are still in the manifest: {error}");
                }
            }
        }
        true
    }
}
