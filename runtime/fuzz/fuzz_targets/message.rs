//! Decoding of messages: a decoded message, encoded, decodes to the same bytes again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oxidask_fuzz::protocol::{Message, Reader, Value, pickle, repr};

fn payloads(value: &Value) {
    match value {
        Value::Payload(payload) => {
            if let Ok(Some(parts)) = payload.pickled_bytes() {
                let _ = pickle::read(&parts.pickle);
            }
        }
        Value::Map(entries) => entries.iter().for_each(|(k, v)| {
            payloads(k);
            payloads(v);
        }),
        other => other
            .as_array()
            .unwrap_or_default()
            .iter()
            .for_each(payloads),
    }
}

fuzz_target!(|data: &[u8]| {
    let message = oxidask_fuzz::message(data);
    let skipped = message
        .head()
        .ok()
        .map(|head| Reader::new(head).skip().is_ok());
    if let Ok(value) = message.decode() {
        assert_eq!(skipped, Some(true));
        payloads(&value);
        let _ = repr::repr(&value);
        let encoded = Message::encode(&value);
        let again = encoded.decode().expect("what was encoded here is decoded");
        assert_eq!(Message::encode(&again), encoded);
    }
});
