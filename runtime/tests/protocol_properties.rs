//! Properties of the protocol code under random input.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use oxidask_runtime::protocol::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn key_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        ".{0,40}".prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-200i64..200).prop_map(Value::from),
        any::<f64>()
            .prop_filter("NaN is equal to nothing", |v| !v.is_nan())
            .prop_map(Value::from),
        (-200i32..200).prop_map(|v| Value::F64(v.into())),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| vec(inner, 0..5).prop_map(Value::Array))
}

fn payload() -> impl Strategy<Value = Value> {
    let frames = vec(
        prop_oneof![vec(any::<u8>(), 0..50), Just(vec![1; 70_000])],
        0..3,
    );
    (frames, any::<bool>()).prop_map(|(frames, pickled)| {
        let mut header = Vec::new();
        write::map_len(&mut header, 1);
        write::str(&mut header, "num-sub-frames");
        write::uint(&mut header, frames.len() as u64);
        let kind = if pickled {
            PayloadKind::Pickled
        } else {
            PayloadKind::Serialized
        };
        Payload {
            kind,
            header: header.into(),
            frames: frames.into_iter().map(Bytes::from).collect(),
        }
        .into()
    })
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        4 => key_value(),
        1 => Just(Value::Nil),
        1 => any::<bool>().prop_map(Value::from),
        1 => vec(any::<u8>(), 0..300).prop_map(Value::from),
        1 => payload(),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::Array),
            vec(inner.clone(), 0..5).prop_map(Value::Set),
            vec((key_value(), inner), 0..6).prop_map(Value::Map),
        ]
    })
}

/// Python's equality of two keys, spelled out.
fn equal_in_python(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal_in_python(a, b))
        }
        (Value::F64(f), Value::Int(i)) | (Value::Int(i), Value::F64(f)) => {
            f.trunc() == *f && *f as i128 == i128::from(*i)
        }
        (Value::F64(f), Value::UInt(i)) | (Value::UInt(i), Value::F64(f)) => {
            f.trunc() == *f && *f as i128 == i128::from(*i)
        }
        (a, b) => a == b,
    }
}

fn feed(bytes: &[u8], cuts: &[usize]) -> Result<Vec<Message>, FrameError> {
    let mut decoder = FrameDecoder::new(Limits::for_memory(1 << 30));
    let mut out = Vec::new();
    let mut rest = bytes;
    let mut cuts = cuts.iter().cycle();
    while !rest.is_empty() {
        let buf = decoder.read_buf();
        let room = buf.capacity() - buf.len();
        assert!(room > 0, "the decoder offers no room");
        // As a socket: never more than there is room for.
        let cut = cuts
            .next()
            .copied()
            .unwrap_or(rest.len())
            .clamp(1, rest.len())
            .min(room);
        let (chunk, tail) = rest.split_at(cut);
        buf.extend_from_slice(chunk);
        rest = tail;
        while let Some(message) = decoder.next()? {
            out.push(message);
        }
    }
    Ok(out)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn values_survive_the_wire_in_any_chunks(
        values in vec(value(), 1..4),
        cuts in vec(prop_oneof![1usize..40, 1usize..100_000], 1..8),
    ) {
        let mut wire = Vec::new();
        for value in &values {
            Message::encode(value).to_chunks().iter().for_each(|chunk| wire.extend_from_slice(chunk));
        }
        let whole = feed(&wire, &[]).unwrap();
        let chunked = feed(&wire, &cuts).unwrap();
        prop_assert_eq!(&whole, &chunked);
        let decoded: Vec<Value> = whole.iter().map(|m| m.decode().unwrap()).collect();
        prop_assert_eq!(decoded, values);
    }

    #[test]
    fn batches_hold_their_messages(values in vec(value(), 1..18)) {
        let mut batch = BatchWriter::new();
        values.iter().for_each(|value| batch.value(value));
        let wire: Vec<u8> = batch.finish().concat();
        let messages = feed(&wire, &[]).unwrap();
        prop_assert_eq!(messages.len(), 1);
        prop_assert_eq!(&messages[0], &Message::encode(&Value::Array(values.clone())));
        prop_assert_eq!(messages[0].decode().unwrap(), Value::Array(values));
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in vec(any::<u8>(), 0..400), key in any::<bool>()) {
        let _ = feed(&bytes, &[7]);
        let mut reader = Reader::new(&bytes);
        let skipped = reader.clone().skip();
        if let Ok(value) = reader.value() {
            prop_assert!(skipped.is_ok());
            let _ = repr::repr(&value);
            if key {
                let _ = Key::from_value(&value);
            }
        }
        let _ = pickle::read(&bytes);
        let mut pickled = b"\x80\x04".to_vec();
        pickled.extend_from_slice(&bytes);
        let _ = pickle::read(&pickled);
        let message = Message { frames: vec![bytes.clone().into(), bytes.clone().into()] };
        if let Ok(value) = message.decode() {
            let _ = handshake::check(&value);
        }
        let _ = message.payload_at(1).map(|p| p.pickled_bytes());
    }

    #[test]
    fn keys_are_equal_when_python_says_so(a in key_value(), b in key_value()) {
        let (ka, kb) = (Key::from_value(&a).unwrap(), Key::from_value(&b).unwrap());
        prop_assert_eq!(ka == kb, equal_in_python(&a, &b));
        prop_assert!(equal_in_python(&ka.to_value(), &a));
        // Canonical bytes are their own canonical form, and are not copied.
        let mut scratch = Vec::new();
        let mut reader = Reader::new(ka.as_bytes());
        let again = reader.key(&mut scratch).unwrap();
        prop_assert_eq!(again.as_ptr(), ka.as_bytes().as_ptr());
        prop_assert_eq!(again, ka.as_bytes());
        // Whatever way a peer writes it.
        let head = Message::encode(&a);
        let mut scratch = Vec::new();
        prop_assert_eq!(Reader::new(head.head().unwrap()).key(&mut scratch).unwrap(), ka.as_bytes());
        let _ = (key_split(&ka), key_split_group(&ka));
    }

    #[test]
    fn raw_values_are_whole(value in value()) {
        let message = Message::encode(&Value::Array(vec![value, 1.into()]));
        let mut reader = Reader::new(message.head().unwrap());
        reader.array_len().unwrap();
        let raw = reader.raw_value().unwrap();
        prop_assert!(Reader::new(raw).value().is_ok());
        prop_assert_eq!(reader.i64().unwrap(), 1);
        prop_assert!(reader.finish().is_ok());
    }

    #[test]
    fn plain_pickles_are_read_back(value in value().prop_filter("payloads have no pickle", |v| !has_payload(v))) {
        prop_assert_eq!(pickle::read(&pickle::write::object(&value)).unwrap(), value);
    }
}

fn has_payload(value: &Value) -> bool {
    match value {
        Value::Payload(_) => true,
        Value::Map(entries) => entries
            .iter()
            .any(|(k, v)| has_payload(k) || has_payload(v)),
        other => other
            .as_array()
            .is_some_and(|items| items.iter().any(has_payload)),
    }
}
