//! The images that this node holds: a content store, what comes into it from archives and registries, and layers unpacked
//! for mounting.
//!
//! Start at [`Store`]: [`Store::import`] takes an archive in, [`Store::ingest`] and [`Store::complete`] take a copy
//! from another node, [`Store::unpack`] makes what a container mounts. [`registry::Client`] moves images between the store
//! and registries. `DESIGN.md` beside this crate has the layout on disk, what survives a crash, and why hostile archives
//! and registries are harmless.
//!
//! The store is synchronous: callers give it a thread that may block. The registry client is async, and finds such
//! threads itself. Neither knows which names an image has (names belong to the cluster; an archive only suggests some),
//! which images are in use, or where credentials are kept.

mod blob;
mod config;
mod decompress;
mod document;
mod import;
mod layer;
mod limits;
mod path;
mod record;
pub mod registry;
mod store;
mod tape;

pub use blob::{DiskError, Ingest, IngestError};
pub use config::{Config, InvalidConfig};
pub use decompress::Bomb;
pub use document::InvalidDocument;
pub use import::{ArchiveKind, ImportError, Imported, Progress, Stage};
pub use layer::LayerError;
pub use limits::OverLimit;
pub use path::InvalidPath;
pub use store::{
    BlobRef, CompleteError, OpenError, ReadError, RemoveError, Store, Stored, UnpackError, Unpacked,
};
pub use tape::TapeError;
