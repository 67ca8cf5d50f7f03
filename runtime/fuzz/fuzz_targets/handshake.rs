//! The first message of a peer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oxidask_fuzz::protocol::{Message, handshake};

fuzz_target!(|data: &[u8]| {
    let message = Message {
        frames: vec![data.to_vec().into()],
    };
    if let Ok(value) = message.decode() {
        if let Ok(handshake) = handshake::check(&value) {
            assert!(
                handshake
                    .compression
                    .is_none_or(|name| name.chars().count() <= 32)
            );
        }
    }
});
