//! The pickle reader: what it reads can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oxidask_fuzz::protocol::pickle;

fuzz_target!(|data: &[u8]| {
    if let Ok(value) = pickle::read(data) {
        let written = pickle::write::object(&value);
        let again = pickle::read(&written).expect("what was written here is read");
        assert_eq!(pickle::write::object(&again), written);
    }
});
