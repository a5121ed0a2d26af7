//! The disk as Raft needs it: atomic batches, an fsync, reads and scans. Small enough that two implementations can be
//! held to the same behaviour: [`crate::rocks`], and [`crate::memory`], which loses what was not synced.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;

/// One key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// An ordered key-value store.
///
/// What survives a power cut is always a prefix of the batches written, each whole or not at all, and at least those
/// written before the last [`Engine::sync`] that returned. The order of writes is therefore all that the callers need
/// to think about.
pub trait Engine: fmt::Debug + Send + Sync + 'static {
    /// Applies a batch atomically. It is visible to reads when this returns, and survives a power cut after the next
    /// `sync` only. Does not wait for the disk.
    fn write(&self, batch: Batch) -> Result<(), EngineError>;

    /// Makes durable everything written before this call. The wait is the engine's: it blocks no async worker.
    fn sync(&self) -> BoxFuture<'static, Result<(), EngineError>>;

    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError>;

    /// At most `limit` pairs with `from <= key < to`, in the order of their keys.
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, EngineError>;
}

impl<T: Engine + ?Sized> Engine for Arc<T> {
    fn write(&self, batch: Batch) -> Result<(), EngineError> {
        (**self).write(batch)
    }

    fn sync(&self) -> BoxFuture<'static, Result<(), EngineError>> {
        (**self).sync()
    }

    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        (**self).read(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, EngineError> {
        (**self).scan(from, to, limit)
    }
}

/// What is written together. Later edits of a key win.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    edits: Vec<Edit>,
}

/// One change of a [`Batch`].
#[derive(Clone, Debug)]
pub enum Edit {
    Put {
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Delete {
        key: Vec<u8>,
    },
    /// Everything with `from <= key < to`; nothing when `to` is not greater.
    DeleteRange {
        from: Vec<u8>,
        to: Vec<u8>,
    },
}

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: Vec<u8>) {
        self.edits.push(Edit::Put { key: key.into(), value });
    }

    pub fn delete(&mut self, key: impl Into<Vec<u8>>) {
        self.edits.push(Edit::Delete { key: key.into() });
    }

    pub fn delete_range(&mut self, from: impl Into<Vec<u8>>, to: impl Into<Vec<u8>>) {
        self.edits.push(Edit::DeleteRange { from: from.into(), to: to.into() });
    }

    pub fn edits(&self) -> &[Edit] {
        &self.edits
    }

    pub fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }
}

/// Why the engine could not do what it was asked. None of these is worth a retry: after a failed fsync nobody knows
/// what the disk holds, so the manager stops.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("the machine that this handle belonged to has crashed")]
    Crashed,
    #[error("cannot {action} the database")]
    Failed {
        action: &'static str,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}
