//! The server over a real socket, fed by the made-up scheduler.

use super::fake::{FakeView, NASTY};
use super::view::*;
use super::{HttpOptions, bind, html, serve};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

struct Reply {
    status: u16,
    head: String,
    body: String,
}

struct Server {
    port: u16,
    view: Arc<FakeView>,
}

async fn start(options: HttpOptions) -> Server {
    let listener = bind(&[("127.0.0.1".into(), 0)]).await.unwrap().remove(0);
    let port = listener.local_addr().unwrap().port();
    let view = FakeView::new();
    tokio::spawn(serve(listener, view.clone(), options));
    Server { port, view }
}

impl Server {
    async fn send(&self, request: &str) -> Reply {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await.unwrap();
        let text = String::from_utf8(text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Reply {
            status,
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }

    async fn get(&self, path: &str) -> Reply {
        self.send(&format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        ))
        .await
    }

    async fn post(&self, path: &str, headers: &str, body: &str) -> Reply {
        let length = body.len();
        self.send(&format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        ))
        .await
    }

    async fn json(&self, path: &str) -> Value {
        let reply = self.get(path).await;
        assert_eq!(reply.status, 200, "{path}");
        serde_json::from_str(&reply.body).unwrap()
    }
}

#[tokio::test]
async fn plain_routes_are_stock_s() {
    let server = start(HttpOptions::default()).await;
    let health = server.get("/health").await;
    assert_eq!((health.status, health.body.as_str()), (200, "ok"));
    assert!(
        health
            .head
            .contains("content-type: text/plain; charset=utf-8")
    );
    let counts = server.json("/json/counts.json").await;
    assert_eq!(counts["desired_workers"], 12);
    assert_eq!(counts.as_object().unwrap().len(), 16);
    assert_eq!(
        server.json("/json/identity.json").await["type"],
        "Scheduler"
    );
    let index = server.get("/json/index.html").await;
    assert!(index.body.contains("<a href=\"identity.json\">"));
    assert!(
        server.json("/sitemap.json").await["paths"]
            .as_array()
            .unwrap()
            .len()
            > 10
    );
    let plots = server.json("/individual-plots.json").await;
    for path in plots.as_object().unwrap().values() {
        assert_eq!(
            server.get(path.as_str().unwrap()).await.status,
            200,
            "{path}"
        );
    }
    for (path, status, location) in [
        ("/", 301, "/status"),
        ("/info", 302, "/info/main/workers.html"),
    ] {
        let reply = server.get(path).await;
        assert_eq!(reply.status, status);
        assert!(
            reply.head.contains(&format!("location: {location}")),
            "{}",
            reply.head
        );
    }
    assert_eq!(server.get("/nonsense").await.status, 404);
}

#[tokio::test]
async fn metrics_have_stock_s_names_and_type() {
    let server = start(HttpOptions::default()).await;
    let reply = server.get("/metrics").await;
    assert!(
        reply
            .head
            .contains("content-type: text/plain; version=0.0.4\r\n"),
        "{}",
        reply.head
    );
    for line in [
        "dask_scheduler_workers{state=\"idle\"} 2",
        "dask_scheduler_tasks{state=\"waiting\"} 2",
        "# TYPE dask_scheduler_tasks_forgotten_total counter",
        "dask_scheduler_prefix_state_totals_total{task_prefix_name=\"inc\",state=\"memory\"} 7",
        "dask_stealing_request_count_total{cost_multiplier=\"1.03125\"} 3",
        "dask_semaphore_max_leases{name=\"lock\"} 1",
        r#"dask_scheduler_tasks_output_bytes{task_prefix_name="a\"b\\c\nd"} 10"#,
    ] {
        assert!(reply.body.contains(line), "{line}\n{}", reply.body);
    }
    assert!(!reply.body.contains("state=\"forgotten\""));
    let process: Vec<&str> = reply
        .body
        .lines()
        .filter(|line| line.starts_with("process_"))
        .collect();
    assert_eq!(process.len(), 6);
    assert!(
        process.iter().all(|line| !line.ends_with(" 0")),
        "{process:?}"
    );
}

#[tokio::test]
async fn api_is_stock_s() {
    let server = start(HttpOptions::default()).await;
    assert_eq!(server.get("/api/v1").await.body, "API V1");
    let workers = server.json("/api/v1/get_workers").await;
    assert_eq!(workers["num_workers"], 10);
    assert_eq!(
        workers["workers"][0],
        json!({"name": 0, "address": "tcp://10.0.0.11:40000"})
    );
    assert_eq!(
        server.json("/api/v1/adaptive_target").await,
        json!({"workers": 12})
    );
    assert_eq!(
        server.json("/api/v1/check_idle").await,
        json!({"idle_since": null})
    );
    let reply = server
        .post("/api/v1/retire_workers", "", r#"{"n": 2}"#)
        .await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        server.view.retired.lock().unwrap()[..],
        [RetireRequest::Count(2)]
    );
    let reply = server.post("/api/v1/retire_workers", "", "nonsense").await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (500, r#"{"Error":"Internal Server Error"}"#)
    );
    let reply = server
        .post(
            "/api/v1/retire_workers",
            "Sec-Fetch-Site: cross-site\r\n",
            r#"{"n": 2}"#,
        )
        .await;
    assert_eq!(reply.status, 403);
    let closed = start(HttpOptions {
        api: false,
        ..HttpOptions::default()
    })
    .await;
    assert_eq!(closed.get("/api/v1/get_workers").await.status, 404);
}

#[tokio::test]
async fn info_pages_escape_what_users_name() {
    let server = start(HttpOptions::default()).await;
    let task = format!("/info/task/{}.html", html::url_escape(NASTY));
    let worker = format!(
        "/info/worker/{}.html",
        html::url_escape("tcp://10.0.0.11:40000")
    );
    for path in [
        task.as_str(),
        worker.as_str(),
        "/info/main/workers.html",
        "/info/main/exceptions.html",
        "/info/main/logs.html",
        "/info/call-stacks/w.html",
        "/info/call-stack/idle.html",
        "/info/logs/w.html",
        "/info/task/a+b.html",
    ] {
        let reply = server.get(path).await;
        assert_eq!(reply.status, 200, "{path}");
        assert!(
            reply
                .head
                .contains("content-security-policy: default-src 'none'"),
            "{path}"
        );
        let body = reply
            .body
            .replace("<script src=\"../../oxidask/info.js\" defer></script>", "");
        for bad in ["<script", "<b>", "<i>", "<img", "<x>"] {
            assert!(!body.contains(bad), "{path}: {bad} in {body}");
        }
    }
    assert!(
        server
            .get(&task)
            .await
            .body
            .contains("../call-stack/%28%27%3Cscript")
    );
    for path in [
        "/info/worker/none.html",
        "/info/task/none.html",
        "/info/logs/none.html",
        "/info/call-stack/none.html",
        "/info/task/x",
    ] {
        assert_eq!(server.get(path).await.status, 404, "{path}");
    }
    let broken = server.get("/info/logs/broken.html").await;
    assert_eq!(broken.status, 500);
    assert!(broken.body.contains("worker &lt;does&gt; not answer"));
}

#[tokio::test]
async fn dashboard_pages_and_data_are_served() {
    let server = start(HttpOptions::default()).await;
    for page in super::router::PAGES {
        let reply = server.get(&format!("/{page}")).await;
        assert_eq!(reply.status, 200, "{page}");
        assert!(
            !reply.body.contains("http://") && !reply.body.contains("https://"),
            "external asset in {page}"
        );
        assert!(
            !reply.body.contains("href=\"/") && !reply.body.contains("src=\"/"),
            "absolute link in {page}"
        );
    }
    let overview = server.json("/oxidask/overview.json").await;
    assert_eq!(overview["totals"]["threads"], 40);
    assert_eq!(overview["workers"].as_array().unwrap().len(), 10);
    let stream = server.json("/oxidask/stream.json").await;
    let next = stream["next"].as_u64().unwrap();
    assert!(next > 0 && !stream["records"].as_array().unwrap().is_empty());
    let more = server
        .json(&format!("/oxidask/stream.json?since={next}"))
        .await;
    assert!(more["records"].as_array().unwrap().len() <= 80);
    for path in ["graph", "events", "logs", "exceptions"] {
        server.json(&format!("/oxidask/{path}.json")).await;
    }
    for asset in ["style.css", "dashboard.js", "charts.js", "info.js"] {
        assert_eq!(server.get(&format!("/oxidask/{asset}")).await.status, 200);
    }
    assert_eq!(server.get("/profile").await.status, 302);
    let bare = start(HttpOptions {
        dashboard: false,
        ..HttpOptions::default()
    })
    .await;
    assert_eq!(bare.get("/status").await.status, 404);
    assert_eq!(bare.get("/info/main/workers.html").await.status, 200);
}

#[tokio::test]
async fn prefix_is_honoured() {
    let server = start(HttpOptions {
        prefix: "a/b".into(),
        ..HttpOptions::default()
    })
    .await;
    for path in [
        "/a/b/status",
        "/a/b/metrics",
        "/a/b/info/main/workers.html",
        "/a/b/health",
        "/health",
    ] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    for path in ["/", "/a/b", "/a/b/"] {
        let reply = server.get(path).await;
        assert_eq!(reply.status, 301, "{path}");
        assert!(reply.head.contains("location: /a/b/status"), "{path}");
    }
    let reply = server.get("/status").await;
    assert_eq!(reply.status, 302);
    assert!(reply.head.contains("location: /a/b/status"));
    assert_eq!(server.get("/metrics").await.status, 404);
    for prefix in ["status", "health"] {
        let server = start(HttpOptions {
            prefix: prefix.into(),
            ..HttpOptions::default()
        })
        .await;
        let path = format!("/{prefix}/health");
        assert_eq!(server.get(&path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn busy_ports_are_replaced() {
    let first = bind(&[("127.0.0.1".into(), 0)]).await.unwrap().remove(0);
    let port = first.local_addr().unwrap().port();
    let second = bind(&[("127.0.0.1".into(), port)]).await.unwrap().remove(0);
    assert_ne!(second.local_addr().unwrap().port(), port);
}

#[tokio::test]
async fn event_stream_speaks_stock_s_messages() {
    use futures_util::{SinkExt as _, StreamExt as _};
    use tokio_tungstenite::tungstenite::Message;
    let server = start(HttpOptions::default()).await;
    let (mut socket, _) =
        tokio_tungstenite::connect_async(format!("ws://127.0.0.1:{}/eventstream", server.port))
            .await
            .unwrap();
    let mut next = async || -> Value {
        match socket.next().await.unwrap().unwrap() {
            Message::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?}"),
        }
    };
    for _ in 0..10 {
        assert_eq!(next().await["name"], "add_worker");
    }
    server
        .view
        .events
        .send(Arc::new(StreamEvent::RemoveWorker("w".into())))
        .unwrap();
    assert_eq!(
        next().await,
        json!({"name": "remove_worker", "worker": "w"})
    );
    let record = StreamRecord {
        key: "inc-1".into(),
        name: "inc".into(),
        worker: "w".into(),
        thread: 7,
        erred: false,
        startstops: vec![
            StartStop {
                action: "transfer".into(),
                start: 1.0,
                stop: 2.0,
            },
            StartStop {
                action: "compute".into(),
                start: 2.0,
                stop: 3.0,
            },
        ],
    };
    let fields = json!({"nbytes": 28}).as_object().unwrap().clone();
    server
        .view
        .events
        .send(Arc::new(StreamEvent::Transition { record, fields }))
        .unwrap();
    let transfer = next().await;
    assert_eq!(
        (&transfer["name"], &transfer["color"], &transfer["action"]),
        (&json!("transition"), &json!("red"), &json!("transfer"))
    );
    let compute = next().await;
    assert_eq!(
        (&compute["key"], &compute["start"], &compute["nbytes"]),
        (&json!("inc-1"), &json!(2.0), &json!(28))
    );
    socket
        .send(Message::text(r#"{"name": "ping"}"#))
        .await
        .unwrap();
    let Message::Text(pong) = socket.next().await.unwrap().unwrap() else {
        panic!()
    };
    assert!(pong.contains("\"pong\""));
}

/// Set `OXIDASK_PROMETHEUS_PYTHON` to a Python that has `prometheus_client`.
#[tokio::test]
async fn metrics_parse_with_the_reference_client() {
    let Ok(python) = std::env::var("OXIDASK_PROMETHEUS_PYTHON") else {
        return;
    };
    let server = start(HttpOptions::default()).await;
    let program = "import sys\n\
        from prometheus_client.parser import text_string_to_metric_families as parse\n\
        print(sum(len(family.samples) for family in parse(sys.stdin.read())))";
    let mut child = std::process::Command::new(python)
        .args(["-c", program])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let body = server.get("/metrics").await.body;
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), body.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let samples = body.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        samples.to_string()
    );
}

#[tokio::test]
async fn https_is_served_and_silent_peers_hold_up_nobody() {
    use crate::config::tls;
    let path = |name: &str| {
        format!(
            "{}/src/config/testdata/tls/{name}",
            env!("CARGO_MANIFEST_DIR")
        )
    };
    let (ca, cert, key) = (path("ca.pem"), path("leaf.pem"), path("leaf-key.pem"));
    let options = HttpOptions {
        tls: Some(tls::dashboard(&cert, Some(&key)).unwrap()),
        ..HttpOptions::default()
    };
    let server = start(options).await;
    let _silent = TcpStream::connect(("127.0.0.1", server.port))
        .await
        .unwrap();
    let settings = tls::TlsSettings {
        ca,
        cert,
        key: Some(key),
        ciphers: None,
        min_version: None,
        max_version: None,
    };
    let connector = tokio_rustls::TlsConnector::from(tls::build(&settings).unwrap().client);
    let stream = TcpStream::connect(("127.0.0.1", server.port))
        .await
        .unwrap();
    let mut stream = connector
        .connect(tls::server_name("localhost"), stream)
        .await
        .unwrap();
    stream
        .write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.ends_with("\r\n\r\nok"), "{text}");
}

/// For looking at the dashboard: `cargo test -p oxidask-runtime --lib http::tests::show -- --ignored`, then open port 8799.
#[tokio::test]
#[ignore = "serves until stopped"]
async fn show() {
    let listener = bind(&[("127.0.0.1".into(), 8799)]).await.unwrap().remove(0);
    serve(listener, FakeView::new(), HttpOptions::default())
        .await
        .unwrap();
}
