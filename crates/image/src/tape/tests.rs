use tar::{Builder, EntryType, Header};

use super::*;

fn header(path: &str, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_path(path).unwrap();
    header.set_entry_type(kind);
    header.set_mode(0o4755);
    header.set_uid(7);
    header.set_gid(8);
    header.set_mtime(1000);
    header.set_size(size);
    header.set_cksum();
    header
}

/// Every entry with its stored content.
fn read(archive: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TapeError> {
    let mut tape = Tape::new(archive);
    let mut entries = Vec::new();
    while let Some(entry) = tape.next()? {
        let mut content = Vec::new();
        tape.read_to_end(&mut content).map_err(|source| tape.failed(source))?;
        entries.push((entry, content));
    }
    Ok(entries)
}

fn one(archive: &[u8]) -> Entry {
    let mut entries = read(archive).unwrap();
    assert_eq!(entries.len(), 1);
    entries.remove(0).0
}

#[test]
fn entries_come_with_content_and_metadata() {
    let mut builder = Builder::new(Vec::new());
    builder.append(&header("dir/", EntryType::Directory, 0), &b""[..]).unwrap();
    builder.append(&header("dir/file", EntryType::Regular, 5), &b"hello"[..]).unwrap();
    let entries = read(&builder.into_inner().unwrap()).unwrap();
    assert_eq!(entries[0].0.kind, Kind::Directory);
    let (file, content) = &entries[1];
    assert_eq!((file.path.as_slice(), content.as_slice()), (&b"dir/file"[..], &b"hello"[..]));
    assert_eq!((file.mode, file.uid, file.gid), (0o4755, 7, 8));
    assert_eq!(file.modified, Modified { seconds: 1000, nanoseconds: 0 });
    assert_eq!(file.content_at, 1024);
}

#[test]
fn content_that_is_not_read_is_skipped() {
    let mut builder = Builder::new(Vec::new());
    builder.append(&header("a", EntryType::Regular, 600), &[1; 600][..]).unwrap();
    builder.append(&header("b", EntryType::Regular, 1), &b"b"[..]).unwrap();
    let archive = builder.into_inner().unwrap();
    let mut tape = Tape::new(archive.as_slice());
    tape.next().unwrap().unwrap();
    assert_eq!(tape.next().unwrap().unwrap().path, b"b");
    assert_eq!(tape.next().unwrap(), None);
    assert_eq!(tape.end(), End::Marked);
}

#[test]
fn long_names_are_read_in_both_forms() {
    let long = "long/".repeat(60) + "name";
    let mut gnu = Builder::new(Vec::new());
    let mut plain = Header::new_gnu();
    plain.set_size(0);
    plain.set_mode(0o644);
    plain.set_mtime(0);
    plain.set_uid(0);
    plain.set_gid(0);
    gnu.append_data(&mut plain, &long, &b""[..]).unwrap();
    assert_eq!(one(&gnu.into_inner().unwrap()).path, long.as_bytes());

    let mut pax = Builder::new(Vec::new());
    pax.append_pax_extensions([("path", long.as_bytes()), ("mtime", &b"5.25"[..])]).unwrap();
    pax.append(&header("short", EntryType::Regular, 0), &b""[..]).unwrap();
    let entry = one(&pax.into_inner().unwrap());
    assert_eq!(entry.path, long.as_bytes());
    assert_eq!(entry.modified, Modified { seconds: 5, nanoseconds: 250_000_000 });
}

#[test]
fn the_size_of_a_pax_record_counts_and_not_the_headers() {
    // TARmageddon (CVE-2025-62518): a parser that believes the header takes the content for entries.
    let mut hidden = Builder::new(Vec::new());
    hidden.append(&header("hidden", EntryType::Regular, 0), &b""[..]).unwrap();
    let hidden = hidden.into_inner().unwrap();
    let mut archive = Builder::new(Vec::new());
    archive.append_pax_extensions([("size", hidden.len().to_string().as_bytes())]).unwrap();
    archive.append(&header("outer", EntryType::Regular, 0), hidden.as_slice()).unwrap();
    let entries = read(&archive.into_inner().unwrap()).unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].0.path.as_slice(), &entries[0].1), (&b"outer"[..], &hidden));
}

#[test]
fn what_is_cut_off_is_truncated_and_what_is_no_header_is_none() {
    let mut builder = Builder::new(Vec::new());
    builder.append(&header("file", EntryType::Regular, 1000), &[1; 1000][..]).unwrap();
    let archive = builder.into_inner().unwrap();
    for length in [100, 600, 1512 - 1] {
        assert!(matches!(read(&archive[..length]), Err(TapeError::Truncated { .. })), "{length}");
    }
    let mut flipped = archive.clone();
    flipped[0] ^= 1;
    assert!(matches!(read(&flipped), Err(TapeError::NoHeader { at: 0 })));
    let mut tape = Tape::new(&archive[..1536]);
    while tape.next().unwrap().is_some() {}
    assert_eq!(tape.end(), End::Unmarked);
}

#[test]
fn hostile_headers_are_refused() {
    let archive = |header: Header, content: &[u8]| {
        let mut builder = Builder::new(Vec::new());
        builder.append(&header, content).unwrap();
        read(&builder.into_inner().unwrap())
    };
    let malformed = |read| matches!(read, Err(TapeError::Malformed { .. }));
    assert!(malformed(archive(header("link", EntryType::Symlink, 512), &[0; 512])), "a link has no content");
    assert!(malformed(archive(header("x", EntryType::XHeader, 5), b"9 a=b")), "a record that is too short");
    let mut owner = header("file", EntryType::Regular, 0);
    owner.set_uid(u64::from(u32::MAX));
    owner.set_cksum();
    assert!(malformed(archive(owner, b"")), "an owner of -1 would be nobody's");
    let huge = archive(header("x", EntryType::XHeader, 2 << 20), &vec![b'0'; 2 << 20]);
    assert!(matches!(huge, Err(TapeError::Metadata { at: 0 })));
    let odd = archive(header("x", EntryType::new(b'Z'), 0), b"");
    assert!(matches!(odd, Err(TapeError::UnknownType { kind: 'Z', .. })));
}

#[test]
fn a_sparse_file_of_pax_has_its_map_before_its_content() {
    let mut map = b"2\n0\n3\n4096\n2\n".to_vec();
    map.resize(512, 0);
    map.extend_from_slice(b"abcde");
    let mut builder = Builder::new(Vec::new());
    let records = [("major", "1"), ("minor", "0"), ("name", "real"), ("realsize", "10000")];
    let records = records.map(|(key, value)| (format!("GNU.sparse.{key}"), value));
    builder
        .append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), value.as_bytes())))
        .unwrap();
    builder
        .append(&header("GNUSparseFile.1/real", EntryType::Regular, map.len() as u64), map.as_slice())
        .unwrap();
    let entries = read(&builder.into_inner().unwrap()).unwrap();
    let segments = vec![Segment { offset: 0, length: 3 }, Segment { offset: 4096, length: 2 }];
    assert_eq!(entries[0].0.path, b"real");
    assert_eq!(entries[0].0.kind, Kind::File { size: 10_000, segments });
    assert_eq!(entries[0].1, b"abcde");
}

#[test]
fn a_sparse_file_of_gnu_tar_has_its_map_in_the_header() {
    let mut header = Header::new_gnu();
    header.set_path("sparse").unwrap();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(3);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(8192);
    gnu.sparse[0].set_offset(4096);
    gnu.sparse[0].set_length(3);
    gnu.sparse[1].set_offset(8192);
    gnu.sparse[1].set_length(0);
    header.set_cksum();
    let mut builder = Builder::new(Vec::new());
    builder.append(&header, &b"abc"[..]).unwrap();
    let entries = read(&builder.into_inner().unwrap()).unwrap();
    let segments = vec![Segment { offset: 4096, length: 3 }];
    assert_eq!(entries[0].0.kind, Kind::File { size: 8192, segments });
    assert_eq!(entries[0].1, b"abc");
}
