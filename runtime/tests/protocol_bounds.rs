//! What a hostile or confused peer can send: everything is refused by its announcement, before memory is spent.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use oxidask_runtime::protocol::*;

fn prelude(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

fn refuse(numbers: &[u64]) -> FrameError {
    let mut decoder = FrameDecoder::new(Limits::for_memory(1 << 30));
    decoder.read_buf().extend_from_slice(&prelude(numbers));
    decoder.next().expect_err("should be refused")
}

#[test]
fn absurd_announcements_are_refused_with_a_reason() {
    assert!(matches!(refuse(&[8, 0]), FrameError::NoFrames));
    assert!(matches!(
        refuse(&[u64::MAX, u64::MAX]),
        FrameError::TooManyFrames { .. }
    ));
    assert!(matches!(refuse(&[8, 1]), FrameError::FirstRead { .. }));
    assert!(matches!(
        refuse(&[u64::MAX, 1]),
        FrameError::TooLarge { .. }
    ));
    assert!(matches!(
        refuse(&[16, 1, u64::MAX]),
        FrameError::HeadTooLarge { .. }
    ));
    assert!(matches!(
        refuse(&[24, 2, 1, u64::MAX]),
        FrameError::TooLarge { .. }
    ));
    assert!(matches!(
        refuse(&[40, 4, 1, 1 << 63, 1 << 63, 0]),
        FrameError::TooLarge { .. }
    ));
    assert!(matches!(refuse(&[18, 1, 1]), FrameError::FirstRead { .. }));
    // A browser or a TLS client on the wrong port.
    let mut decoder = FrameDecoder::new(Limits::default());
    decoder
        .read_buf()
        .extend_from_slice(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let text = decoder.next().unwrap_err().to_string();
    assert!(text.contains("is it a Dask peer?"), "{text}");
}

#[test]
fn announced_lengths_do_not_claim_memory() {
    let limits = Limits {
        max_frames: 16 << 20,
        max_message_bytes: 1 << 45,
        max_head_bytes: 1 << 44,
    };
    let mut decoder = FrameDecoder::new(limits);
    decoder
        .read_buf()
        .extend_from_slice(&prelude(&[8 * ((8 << 20) + 1), 8 << 20]));
    assert!(decoder.next().unwrap().is_none());
    assert!(decoder.read_buf().capacity() < 1 << 20);
    let mut decoder = FrameDecoder::new(limits);
    decoder
        .read_buf()
        .extend_from_slice(&prelude(&[16, 1, 1 << 40]));
    assert!(decoder.next().unwrap().is_none());
    assert!(decoder.read_buf().capacity() <= 512 << 20);
}

#[test]
fn a_large_frame_gets_memory_of_its_own_size() {
    let message = Message {
        frames: vec![
            b"\xc0"[..].into(),
            vec![1; 10 << 20].into(),
            b"x"[..].into(),
        ],
    };
    let mut decoder = FrameDecoder::new(Limits::default());
    let wire = message.to_chunks().concat();
    let mut rest = &wire[..];
    let mut largest = 0;
    let mut out = None;
    while !rest.is_empty() {
        let buf = decoder.read_buf();
        largest = largest.max(buf.capacity());
        let room = (buf.capacity() - buf.len()).min(rest.len());
        assert!(room > 0);
        buf.extend_from_slice(&rest[..room]);
        rest = &rest[room..];
        out = out.or(decoder.next().unwrap());
    }
    assert_eq!(out, Some(message));
    assert!(largest <= (10 << 20) + 4096, "{largest}");
    assert!(decoder.is_idle());
}

#[test]
fn zero_length_frames_and_any_first_read_are_accepted() {
    for first_read in [32, 33, 34] {
        let mut wire = prelude(&[first_read, 3, 1, 0, 1]);
        wire.extend_from_slice(b"\xc0z");
        let mut decoder = FrameDecoder::new(Limits::default());
        for byte in wire {
            assert!(decoder.next().unwrap().is_none());
            decoder.read_buf().extend_from_slice(&[byte]);
        }
        let message = decoder.next().unwrap().unwrap();
        assert_eq!(
            message.frames,
            [
                Bytes::from_static(b"\xc0"),
                Bytes::new(),
                Bytes::from_static(b"z")
            ]
        );
    }
}

#[test]
fn unread_bytes_go_on_in_the_next_decoder() {
    let message = Message {
        frames: vec![b"\xc0"[..].into(), b"abc"[..].into(), b"d"[..].into()],
    };
    let whole = message.to_chunks().concat();
    for end in 0..whole.len() {
        let mut first = FrameDecoder::new(Limits::default());
        first.read_buf().extend_from_slice(&whole);
        first.read_buf().extend_from_slice(&whole[..end]);
        assert_eq!(first.next().unwrap(), Some(message.clone()));
        assert_eq!(first.next().unwrap(), None);
        let mut second = FrameDecoder::with_unread(Limits::default(), first.into_unread());
        assert_eq!(second.next().unwrap(), None);
        second.read_buf().extend_from_slice(&whole[end..]);
        assert_eq!(second.next().unwrap(), Some(message.clone()));
    }
}

#[test]
fn nesting_and_repetition_are_bounded() {
    let mut deep = vec![0x91u8; 100_000];
    deep.push(0xc0);
    assert!(matches!(
        Reader::new(&deep).value(),
        Err(DecodeError::TooDeep { .. })
    ));
    assert!(Reader::new(&deep).skip().is_ok());
    assert!(matches!(
        Reader::new(&deep).key(&mut Vec::new()),
        Err(DecodeError::TooDeep { .. })
    ));
    // An array that claims more items than there are bytes.
    assert!(Reader::new(b"\xdd\xff\xff\xff\xff\xc0").value().is_err());
    assert!(Reader::new(b"\xdf\xff\xff\xff\xff\xc0").skip().is_err());
    // One payload referred to a thousand times.
    let mut head = Vec::new();
    write::array_len(&mut head, 1000);
    for _ in 0..1000 {
        head.extend_from_slice(b"\x81\xae__Serialized__\x01");
    }
    let mut frames: Vec<Bytes> = vec![
        head.into(),
        b"\x81\xaenum-sub-frames\xcd\x03\xe6"[..].into(),
    ];
    frames.resize(1000, Bytes::new());
    assert_eq!(
        Message { frames }.decode(),
        Err(DecodeError::RepeatedFrames)
    );
    // Cycles and shared values in a pickle.
    assert!(pickle::read(b"\x80\x04]\x94h\x00a.").is_err());
    let mut laughs = b"\x80\x04]\x94".to_vec();
    for i in 0..60u8 {
        laughs.extend_from_slice(&[b']', 0x94, b'(', b'h', i, b'h', i, b'e']);
    }
    laughs.push(b'.');
    assert!(matches!(
        pickle::read(&laughs),
        Err(pickle::ReadError::NeedsPython { .. })
    ));
    let long = Value::from("x".repeat((1 << 20) + 1));
    assert!(matches!(
        Key::from_value(&long),
        Err(DecodeError::KeyTooLong { .. })
    ));
}

#[test]
fn compressed_buffers_are_decompressed_within_bounds() {
    let data = vec![7u8; 50_000];
    let mut lz4 = (data.len() as u32).to_le_bytes().to_vec();
    lz4.extend(lz4_flex::block::compress(&data));
    let zstd = zstd::encode_all(&data[..], 3).unwrap();
    for (name, frame) in [("lz4", lz4), ("zstd", zstd)] {
        let plain = compression::decompress(name, &frame.clone().into()).unwrap();
        assert_eq!(plain, data);
        assert!(compression::decompress(name, &frame[..frame.len() / 2].to_vec().into()).is_err());
    }
    let bomb = [0xff, 0xff, 0xff, 0x3f, 0x00];
    assert!(compression::decompress("lz4", &bomb[..].to_vec().into()).is_err());
    assert!(compression::decompress("snappy", &Bytes::new()).is_err());
}
