//! The nouns of `model` as messages and back. One file for each of `model`'s.

mod ids;
mod image;
mod node;
mod service;
mod task;
