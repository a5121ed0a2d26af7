//! The images that this node holds: a content store, what comes into it from archives and registries, and layers unpacked
//! for mounting.
//!
//! Start at [`Store`]: [`Store::import`] takes an archive in, [`Store::ingest`] and [`Store::complete`] take a copy
//! from another node, [`Store::unpack`] makes what a container mounts; [`Store::ingest_layer`] does so with one layer
//! while it comes; [`Store::commit`] makes an image over one that is here. [`Store::save`] writes an archive.
//! [`registry::Client`] moves images between the store and registries. Layers are hostile input: an [`Unpacker`] has them
//! unpacked by a process that can do nothing else ([`unpack_main`]). `DESIGN.md` beside this crate has the layout on disk,
//! what survives a crash, and why hostile archives and registries are harmless.
//!
//! The store is synchronous: callers give it a thread that may block. The registry client is async, and finds such
//! threads itself. Neither knows which names an image has (names belong to the cluster; an archive only suggests some),
//! which images are in use, or where credentials are kept.

mod blob;
mod commit;
mod config;
mod decompress;
mod document;
mod import;
mod layer;
mod limits;
mod path;
mod record;
pub mod registry;
mod save;
mod store;
mod tape;
mod unpacker;

pub use blob::{DiskError, Ingest, IngestError};
pub use commit::{Change, CommitError, Committed, Edits, InvalidChange, LayerFailure};
pub use config::{Config, InvalidConfig};
pub use decompress::Bomb;
pub use document::InvalidDocument;
pub use import::{ArchiveKind, ImportError, Imported, Progress, Stage};
pub use layer::{Fault, LayerError};
pub use limits::OverLimit;
pub use path::InvalidPath;
pub use save::SaveError;
pub use store::{
    Arrival, BlobRef, CompleteError, IngestLayer, IngestLayerError, LayerRef, OpenError, Parts, ReadError,
    RemoveError, Space, Store, Stored, UnpackError, Unpacked,
};
pub use tape::TapeError;
pub use unpacker::{UNPACK_ARGUMENT, Unpacker, UnpackerError, unpack_main};
