use super::*;
use rustls::{ClientConnection, Connection, ServerConnection};

fn path(name: &str) -> String {
    format!(
        "{}/src/config/testdata/tls/{name}",
        env!("CARGO_MANIFEST_DIR")
    )
}

fn settings(ca: &str, name: &str) -> TlsSettings {
    TlsSettings {
        ca: path(ca),
        cert: path(&format!("{name}.pem")),
        key: Some(path(&format!("{name}-key.pem"))),
        ciphers: None,
        min_version: Some(1.2),
        max_version: None,
    }
}

fn pump(from: &mut Connection, to: &mut Connection) -> Result<bool, RustlsError> {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).unwrap();
    }
    let mut rest = &wire[..];
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
        to.process_new_packets()?;
    }
    Ok(!wire.is_empty())
}

fn handshake(
    client: &TlsSettings,
    server: &TlsSettings,
) -> Result<Option<ProtocolVersion>, String> {
    let text = |error: RustlsError| error.to_string();
    let client = build(client).unwrap().client;
    let server = build(server).unwrap().server;
    let mut client =
        Connection::from(ClientConnection::new(client, server_name("10.1.2.3")).map_err(text)?);
    let mut server = Connection::from(ServerConnection::new(server).map_err(text)?);
    while pump(&mut client, &mut server).map_err(text)?
        | pump(&mut server, &mut client).map_err(text)?
    {}
    Ok(client
        .protocol_version()
        .filter(|_| !client.is_handshaking() && !server.is_handshaking()))
}

#[test]
fn names_are_not_compared() {
    let leaf = settings("ca.pem", "leaf");
    assert_eq!(handshake(&leaf, &leaf), Ok(Some(ProtocolVersion::TLSv1_3)));
    let mut old = leaf.clone();
    old.max_version = Some(1.2);
    old.ciphers = Some("ECDHE-ECDSA-AES256-GCM-SHA384".into());
    assert_eq!(handshake(&old, &leaf), Ok(Some(ProtocolVersion::TLSv1_2)));
}

#[test]
fn both_sides_must_be_signed_by_the_ca() {
    let leaf = settings("ca.pem", "leaf");
    assert!(handshake(&settings("ca.pem", "self"), &leaf).is_err());
    assert!(handshake(&leaf, &settings("ca.pem", "self")).is_err());
    assert!(handshake(&settings("plain.pem", "leaf"), &leaf).is_err());
}

#[test]
fn self_signed_certificates_serve_as_their_own_ca() {
    for name in ["self", "plain"] {
        let own = settings(&format!("{name}.pem"), name);
        assert_eq!(
            handshake(&own, &own),
            Ok(Some(ProtocolVersion::TLSv1_3)),
            "{name}"
        );
    }
}

#[test]
fn in_memory_pem_and_key_in_the_certificate_s_file_work() {
    let read = |name: &str| std::fs::read_to_string(path(name)).unwrap();
    let mut memory = settings("ca.pem", "leaf");
    memory.ca = read("ca.pem");
    memory.cert = read("leaf.pem") + &read("leaf-key.pem");
    memory.key = None;
    assert!(
        handshake(&memory, &settings("ca.pem", "leaf"))
            .unwrap()
            .is_some()
    );
}

#[test]
fn errors_name_the_file() {
    let mut bad = settings("ca.pem", "leaf");
    bad.key = Some("/nonexistent/key.pem".into());
    assert!(
        build(&bad)
            .unwrap_err()
            .to_string()
            .contains("/nonexistent/key.pem")
    );
    bad.key = Some(path("ca.pem"));
    assert!(build(&bad).unwrap_err().to_string().contains("private key"));
    bad.key = Some(path("self-key.pem"));
    assert!(build(&bad).is_err());
    bad.ciphers = Some("RC4-MD5".into());
    assert!(
        build(&bad)
            .unwrap_err()
            .to_string()
            .contains("ECDHE-RSA-AES128-GCM-SHA256")
    );
    assert!(dashboard(&path("leaf.pem"), Some(&path("leaf-key.pem"))).is_ok());
}
