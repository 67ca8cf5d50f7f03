//! Messages, frames and batches through the public API.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use oxidask_runtime::protocol::*;

fn decode_all(chunks: &[Bytes]) -> Vec<Message> {
    let mut decoder = FrameDecoder::new(Limits::default());
    let mut out = Vec::new();
    for chunk in chunks {
        decoder.read_buf().extend_from_slice(chunk);
        while let Some(message) = decoder.next().unwrap() {
            out.push(message);
        }
    }
    assert!(decoder.is_idle());
    out
}

#[test]
fn a_message_with_small_and_large_payloads_survives_the_wire() {
    let big = vec![7u8; 300_000];
    let value = Value::map([
        ("op", "x".into()),
        ("a", Payload::serialized_bytes(&big).into()),
        ("b", Payload::pickled(b"\x80\x05).").into()),
        (
            "keys",
            Value::Set(vec![
                "x-1".into(),
                Value::array([Value::from("y"), 1.into()]),
            ]),
        ),
        ("big", Value::from(u64::MAX)),
    ]);
    let message = Message::encode(&value);
    let chunks = message.to_chunks();
    assert_eq!(chunks.len(), 3);
    let back = decode_all(&chunks);
    assert_eq!(back, [message]);
    assert_eq!(back[0].decode().unwrap(), value);
}

#[test]
fn a_batch_renumbers_payloads() {
    let mut batch = BatchWriter::new();
    assert!(batch.finish().is_empty());
    let payload = Payload::serialized_bytes(&[1; 100_000]);
    for round in 0..3 {
        for i in 0..20i64 {
            let head = batch.begin();
            write::map_len(head, 2);
            write::str(head, "i");
            write::int(head, i);
            write::str(head, "p");
            if round == 1 && i == 3 {
                batch.payload(&payload);
            } else {
                batch.inline_payload(
                    PayloadKind::Pickled,
                    &[
                        b"\x82\xabpickled-obj\xc4\x01.",
                        b"\xaenum-sub-frames",
                        b"\0",
                    ],
                );
            }
        }
        batch.value(&Value::map([("p", Payload::pickled(b"x").into())]));
        let messages = decode_all(&batch.finish());
        let value = messages[0].decode().unwrap();
        let items = value.as_array().unwrap();
        assert_eq!(items.len(), 21);
        let third = items[3].get("p").unwrap().as_payload().unwrap();
        assert_eq!(third.kind == PayloadKind::Serialized, round == 1);
        assert_eq!(
            &items[4]
                .get("p")
                .unwrap()
                .as_payload()
                .unwrap()
                .pickled_bytes()
                .unwrap()
                .unwrap()
                .pickle[..],
            b"."
        );
        assert_eq!(
            &items[20]
                .get("p")
                .unwrap()
                .as_payload()
                .unwrap()
                .pickled_bytes()
                .unwrap()
                .unwrap()
                .pickle[..],
            b"x"
        );
    }
}

#[test]
fn keys_are_equal_as_in_python() {
    let int = Key::from_value(&Value::array([Value::from("x"), 1.into()])).unwrap();
    let float = Key::from_value(&Value::array([Value::from("x"), 1.0.into()])).unwrap();
    assert_eq!(int, float);
    assert_eq!(int.to_string(), "('x', 1)");
    let mut scratch = Vec::new();
    // ("x", 1.0) and ("x", 1) with a needlessly long integer
    assert_eq!(
        Reader::new(b"\x92\xa1x\xcb\x3f\xf0\0\0\0\0\0\0")
            .key(&mut scratch)
            .unwrap(),
        int.as_bytes()
    );
    assert_eq!(
        Reader::new(b"\xdc\0\x02\xd9\x01x\xd1\0\x01")
            .key(&mut scratch)
            .unwrap(),
        int.as_bytes()
    );
    // A positive number with a marker for negative ones, as long as its canonical form.
    assert_eq!(
        Reader::new(b"\xd1\x0f\x12").key(&mut scratch).unwrap(),
        b"\xcd\x0f\x12"
    );
    assert!(Reader::new(b"\x92\xa1x\xc0").key(&mut scratch).is_err());
    assert_eq!(Key::new_str("x-1").to_string(), "x-1");
}

#[test]
fn the_handshake_is_that_of_stock_dask() {
    let ours = handshake::encode();
    let theirs = decode_all(&ours.to_chunks())[0].decode().unwrap();
    assert_eq!(handshake::check(&theirs).unwrap().pickle_protocol, 5);
    assert!(handshake::check(&Value::Nil).is_err());
}
