//! Any bytes as the body of every operation and of every answer, JSON or XML: reading never panics,
//! and what was read can be read again from what we write.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sortie_wire::shapes;

fuzz_target!(|data: &[u8]| {
    for operation in shapes::operations() {
        if let Ok(value) = (operation.read_request)(data)
            && operation.service.protocol() != sortie_wire::Protocol::Query
        {
            let again = (operation.read_request)(value.to_string().as_bytes());
            assert_eq!(again.expect("our own JSON is read"), value, "{}", operation.name);
        }
        let _ = (operation.read_response)(data);
    }
});
