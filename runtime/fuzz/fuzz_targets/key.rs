//! Keys: canonical bytes are their own canonical form, and every way to a key agrees.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oxidask_fuzz::protocol::{Key, Reader, key_split, key_split_group};

fuzz_target!(|data: &[u8]| {
    let mut scratch = Vec::new();
    let mut reader = Reader::new(data);
    let Ok(bytes) = reader.key(&mut scratch) else {
        assert!(
            Reader::new(data)
                .value()
                .map_or(true, |value| Key::from_value(&value).is_err())
        );
        return;
    };
    let key = Key::from_canonical(bytes);
    let used = reader.position();
    assert_eq!(
        Key::from_msgpack(key.as_bytes()).expect("canonical bytes are a key"),
        key
    );
    let mut other = Vec::new();
    assert_eq!(
        Reader::new(key.as_bytes())
            .key(&mut other)
            .expect("canonical bytes are a key"),
        key.as_bytes()
    );
    assert!(other.is_empty(), "canonical bytes are borrowed");
    assert_eq!(
        Key::from_value(&Reader::new(data).value().expect("a key is a value")).expect("a key"),
        key
    );
    assert_eq!(
        Reader::new(data)
            .raw_value()
            .expect("a key is a value")
            .len(),
        used
    );
    let _ = (key.to_string(), key_split(&key), key_split_group(&key));
});
