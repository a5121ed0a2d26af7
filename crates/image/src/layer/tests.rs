use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

use super::*;

fn header(path: &str, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    header
}

/// Blocks: a directory (1), a file of 700 bytes (1 and 2), a link (1), the end (2).
fn archive() -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    builder.append(&header("dir/", EntryType::Directory, 0), &b""[..]).unwrap();
    builder.append(&header("dir/file", EntryType::Regular, 700), &[7; 700][..]).unwrap();
    let mut link = header("link", EntryType::Symlink, 0);
    link.set_link_name("dir/file").unwrap();
    link.set_cksum();
    builder.append(&link, &b""[..]).unwrap();
    builder.into_inner().unwrap()
}

/// The entries that came with all their content, and how the reading ended.
fn read(archive: &[u8], usage: Usage) -> (Vec<String>, Result<(), LayerError>) {
    let mut whole = Vec::new();
    let ended = walk(&mut Tape::new(archive), usage, |entry, _, tape| {
        io::copy(tape, &mut io::sink()).map_err(LayerError::Blob)?;
        whole.push(shown(&entry.path));
        Ok(())
    });
    (whole, ended.map(drop))
}

#[test]
fn an_archive_that_is_cut_off_anywhere_is_an_error_or_ends_between_two_entries() {
    let archive = archive();
    assert_eq!(archive.len(), 7 * 512);
    let all = ["dir/", "dir/file", "link"];
    for cut in 0..archive.len() {
        let (whole, ended) = read(&archive[..cut], Usage::of_at_most(limits::LAYER));
        assert_eq!(whole, all[..whole.len()], "{cut}");
        // Between entries, and anywhere behind the first block of the end.
        let between = [0, 512, 2048, 2560].contains(&cut) || cut >= 3072;
        assert_eq!(ended.is_ok(), between, "{cut}: {ended:?}");
    }
}

#[test]
fn a_compressed_archive_that_is_cut_off_anywhere_is_an_error() {
    let archive = archive();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&archive).unwrap();
    let gzip = encoder.finish().unwrap();
    let zstd = zstd::stream::encode_all(archive.as_slice(), 3).unwrap();
    for packed in [gzip, zstd] {
        let whole = inspect(packed.as_slice()).unwrap();
        assert_eq!(whole.diff_id, crate::blob::digest_of(&archive));
        for cut in 1..packed.len() {
            inspect(&packed[..cut]).unwrap_err();
        }
    }
}

#[test]
fn a_layer_has_as_many_entries_as_it_may_and_no_more() {
    let archive = archive();
    let (whole, ended) = read(&archive, Usage::of_at_most_entries(limits::LAYER, 3));
    assert_eq!((whole.len(), ended.is_ok()), (3, true));
    let (whole, ended) = read(&archive, Usage::of_at_most_entries(limits::LAYER, 2));
    assert_eq!(whole.len(), 2);
    let error = ended.unwrap_err();
    assert!(matches!(&error, LayerError::Limit { source: OverLimit::Entries(2), .. }), "{error:?}");
    assert_eq!(error.fault(), Fault::Layer);
}

#[test]
fn the_sizes_of_all_files_together_are_limited_and_not_each_by_itself() {
    let mut builder = Builder::new(Vec::new());
    for path in ["a", "b", "c"] {
        builder.append(&header(path, EntryType::Regular, 100), &[7; 100][..]).unwrap();
    }
    let (whole, ended) = read(&builder.into_inner().unwrap(), Usage::of_at_most(Bytes(250)));
    assert_eq!(whole, ["a", "b"]);
    assert!(matches!(ended, Err(LayerError::Limit { source: OverLimit::Size(Bytes(250)), .. })), "{ended:?}");
}

#[test]
fn a_file_that_cannot_be_written_is_the_machines_fault_unless_the_layer_asked_for_it() {
    let place = |errno: Errno| LayerError::Place { entry: "x".to_owned(), act: "make", source: errno.into() };
    assert_eq!(place(Errno::NOSPC).fault(), Fault::Machine);
    assert_eq!(place(Errno::NAMETOOLONG).fault(), Fault::Layer);
    let cut_off = LayerError::Blob(io::ErrorKind::UnexpectedEof.into());
    assert_eq!(cut_off.fault(), Fault::Layer);
}
