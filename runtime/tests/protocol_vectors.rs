//! Comparison with what stock dask and distributed produce; the data files come from `data/make_vectors.py`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use oxidask_runtime::protocol::*;

fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2));
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect()
}

fn text(hex: &str) -> String {
    String::from_utf8(unhex(hex)).unwrap()
}

#[test]
fn prefix_group_and_str_of_keys_are_those_of_stock_dask() {
    let mut wrong = Vec::new();
    for line in include_str!("data/key_split.tsv").lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let bytes = unhex(fields[0]);
        let key = Key::from_msgpack(&bytes).unwrap();
        let expected = [text(fields[1]), text(fields[2]), text(fields[3])];
        let got = [key.to_string(), key_split(&key), key_split_group(&key)];
        if got != expected {
            wrong.push((got, expected));
        }
        assert_eq!(Key::from_value(&key.to_value()).unwrap(), key);
    }
    assert!(wrong.is_empty(), "(got, expected): {wrong:#?}");
}

#[test]
fn messages_of_stock_dask_are_decoded_and_encoded_alike() {
    let mut lines = 0;
    for line in include_str!("data/messages.txt").lines() {
        let (expression, frames) = line.split_once('\t').unwrap();
        let frames = frames
            .split(' ')
            .map(|hex| Bytes::from(unhex(hex)))
            .collect();
        let message = Message { frames };
        let value = message
            .decode()
            .unwrap_or_else(|e| panic!("{expression}: {e}"));
        assert_eq!(Message::encode(&value), message, "{expression}");
        lines += 1;
    }
    assert!(lines > 10);
}

#[test]
fn the_payloads_built_here_are_those_of_stock_dask() {
    let vectors = include_str!("data/messages.txt");
    let message = |expression: &str| {
        let line = vectors
            .lines()
            .find(|l| l.split('\t').next() == Some(expression))
            .unwrap();
        let frames = line
            .split_once('\t')
            .unwrap()
            .1
            .split(' ')
            .map(|hex| Bytes::from(unhex(hex)))
            .collect();
        Message { frames }.decode().unwrap()
    };
    let data = message("{'data': to_serialize(b'abc'), 'e': to_serialize(bytearray(b'xyz'))}");
    assert_eq!(
        data.get("data").unwrap().as_payload().unwrap(),
        &Payload::serialized_bytes(b"abc")
    );
    let data = message("{'status': 'OK', 'data': {'x-1': to_serialize(2)}}");
    let two = data.get("data").unwrap().get("x-1").unwrap();
    assert_eq!(
        two.as_payload().unwrap(),
        &Payload::serialized_pickle(b"\x80\x05K\x02.")
    );
    let array = message("{'code': ToPickle(np.arange(4.0)), 'n': None}");
    let parts = array
        .get("code")
        .unwrap()
        .as_payload()
        .unwrap()
        .pickled_bytes()
        .unwrap()
        .unwrap();
    assert_eq!(parts.buffers.len(), 1);
    assert_eq!(parts.buffers[0].len(), 32);
    let batch = message(
        "[{'op': 'a', 'code': ToPickle(())}, {'op': 'b', 'annotations': ToPickle({'priority': 1}), 'x': to_serialize([1, (2, 3)])}]",
    );
    let code = batch.as_array().unwrap()[0]
        .get("code")
        .unwrap()
        .as_payload()
        .unwrap();
    let pickle = code.pickled_bytes().unwrap().unwrap().pickle;
    assert_eq!(code, &Payload::pickled(&pickle));
    assert_eq!(pickle::read(&pickle).unwrap(), Value::Array(vec![]));
}

#[test]
fn plain_pickles_are_read_and_others_left_to_python() {
    const OTHERS: [&str; 8] = [
        "2**70",
        "-2**70",
        "range(3)",
        "np.float64(1)",
        "KeyError('x')",
        "'\\ud800'",
        "object()",
        "bytearray(b'x')",
    ];
    for line in include_str!("data/pickles.txt").lines() {
        let (expression, hex) = line.split_once('\t').unwrap();
        let bytes = unhex(hex);
        let read = pickle::read(&bytes);
        // Protocol 2 writes sets and bytes as calls.
        let called = bytes[1] == 2
            && read.is_err()
            && (expression.contains("set(")
                || expression.contains('{')
                || expression.contains("b'"));
        if OTHERS.contains(&expression) || expression.contains("x.append") || called {
            assert!(
                matches!(read, Err(pickle::ReadError::NeedsPython { .. })),
                "{expression}: {read:?}"
            );
            continue;
        }
        let value = read.unwrap_or_else(|e| panic!("{expression}: {e}"));
        assert_eq!(
            pickle::read(&pickle::write::object(&value)).unwrap(),
            value,
            "{expression}"
        );
        for end in 0..bytes.len() {
            assert!(pickle::read(&bytes[..end]).is_err());
        }
    }
    let read = |expression: &str| {
        let line = include_str!("data/pickles.txt")
            .lines()
            .rfind(|l| l.split('\t').next() == Some(expression))
            .unwrap();
        pickle::read(&unhex(line.split_once('\t').unwrap().1)).unwrap()
    };
    let numbers = "[0, 255, 256, 65535, 65536, -1, 2**31, -2**31 - 1, 2**63 - 1, 2**63, 2**64 - 1, -2**63, 1.5]";
    assert_eq!(
        repr::repr(&read(numbers)),
        "(0, 255, 256, 65535, 65536, -1, 2147483648, -2147483649, 9223372036854775807, 9223372036854775808, \
         18446744073709551615, -9223372036854775808, 1.5)"
    );
    assert_eq!(
        repr::repr(&read("(lambda x: {'a': x, 'b': x})(['y', 'z'])")),
        "{'a': ('y', 'z'), 'b': ('y', 'z')}"
    );
    assert_eq!(
        repr::repr(&read("{('x', 0): {'resources': {'GPU': 1.0}}}")),
        "{('x', 0): {'resources': {'GPU': 1.0}}}"
    );
}

#[test]
fn version_warnings_are_those_of_stock_dask() {
    let cases: serde_json::Value =
        serde_json::from_str(include_str!("data/versions.json")).unwrap();
    for case in cases.as_array().unwrap() {
        let workers: Vec<Value> = case["workers"]
            .as_array()
            .unwrap()
            .iter()
            .map(from_json)
            .collect();
        let (scheduler, source) = (from_json(&case["scheduler"]), from_json(&case["source"]));
        let got = versions::error_message(
            &scheduler,
            &workers,
            &source,
            case["name"].as_str().unwrap(),
        );
        assert_eq!(got, case["warning"].as_str().unwrap(), "{case}");
    }
}

#[test]
fn version_warnings_list_the_workers_versions() {
    let node = |dask: &str| Value::map([("packages", Value::map([("dask", dask.into())]))]);
    let workers = [node("3"), node("2"), node("2")];
    let text = versions::error_message(&node("1"), &workers, &node("1"), "Client");
    assert!(
        text.contains("| dask    | 1      | 1         | {'2', '3'} |"),
        "{text}"
    );
}

fn from_json(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Object(entries) => {
            Value::map(entries.iter().map(|(k, v)| (k.as_str(), from_json(v))))
        }
        serde_json::Value::String(text) => text.as_str().into(),
        _ => Value::Nil,
    }
}
