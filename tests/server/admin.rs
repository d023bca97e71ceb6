//! Keys, tenants, numbers, sounds and the audit log over HTTP.

use reqwest::Method;
use serde_json::{Value, json};

use crate::api::{Answer, Key, bare, send};
use crate::harness::{Server, go, number, unique, world};

/// An operator: a key of the scope `admin`.
pub(crate) struct Admin(pub(crate) Key);

impl Admin {
    pub(crate) fn of(server: &Server) -> Self {
        Self(server.key(&["--admin"]))
    }

    pub(crate) async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let request = self.0.request(method, &format!("/admin/v1{path}"));
        send(match body {
            Some(body) => request.body(body.to_string()),
            None => request,
        })
        .await
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.ask(Method::GET, path, None).await.expect(200)
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::PATCH, path, Some(body)).await
    }

    /// Makes a key that dials the carrier, with these settings besides.
    pub(crate) async fn key(&self, settings: Value) -> Key {
        let mut body = json!({"name": "made", "trunks": ["carrier"], "rateLimit": 10_000});
        let object = body.as_object_mut().expect("an object");
        object.extend(settings.as_object().expect("an object").clone());
        let made = self.post("/keys", body).await.expect(201);
        let base: std::net::SocketAddr = self.0.base["http://".len()..].parse().expect("an address");
        Key::new(base, &made)
    }

    /// The actions told of a subject, newest first.
    async fn told(&self, subject: &str) -> Vec<Value> {
        let rows = self.get(&format!("/audit?subject={}", subject.replace('+', "%2B"))).await;
        rows["entries"].as_array().expect("rows").clone()
    }
}

fn actions(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["action"].as_str().expect("a word")).collect()
}

pub(crate) async fn place(key: &Key, to: &str) -> Answer {
    key.post("/makecall", &json!({"number": to})).await
}

#[test]
fn a_key_made_over_http_works_at_once_and_ends_at_once() {
    go(async {
        let admin = Admin::of(&world().await.server);
        let body = json!({"name": "shop", "credits": 7, "trunks": ["carrier"], "tenant": "TA"});
        let made = admin.post("/keys", body).await.expect(201);
        let id = made["keyId"].as_str().expect("an id").to_owned();
        let secret = made["key"].as_str().expect("a key").to_owned();
        assert!(secret.starts_with("ak_") && made["webhookSecret"].as_str().is_some(), "{made}");
        assert_eq!((&made["credits"], &made["tenant"]), (&json!(7), &json!("TA")));
        assert_eq!((&made["trunks"], &made["state"]), (&json!(["carrier"]), &json!("active")));
        assert_eq!(made["prefix"], secret[..8]);
        let key = Key { key: secret.clone(), ..admin.0.clone() };
        assert_eq!(key.get("/api/me").await.expect(200)["apiKey"]["keyId"], id.as_str());

        // Its secrets are shown that once.
        let shown = admin.get(&format!("/keys/{id}")).await;
        assert!(shown.get("key").is_none() && shown.get("webhookSecret").is_none(), "{shown}");
        let listed = admin.get("/keys?tenant=TA&limit=1000").await;
        let rows = listed["keys"].as_array().expect("rows");
        assert!(rows.iter().any(|row| row["keyId"] == id.as_str() && row.get("key").is_none()), "{listed}");

        let credited = admin.post(&format!("/keys/{id}/credit"), json!({"delta": -2})).await.expect(200);
        assert_eq!(credited, json!({"keyId": id, "credits": 5}));
        let path = format!("/keys/{id}");
        let changed = admin.patch(&path, json!({"name": "store", "rateLimit": 3, "expiresAt": null})).await;
        assert_eq!(changed.expect(200)["rateLimit"], 3);
        assert_eq!(key.get("/api/me").await.expect(200)["apiKey"]["rateLimit"], 3);
        assert_eq!(
            admin.patch(&path, json!({"rateLimit": null})).await.expect(200)["rateLimit"],
            Value::Null
        );
        let trunks = admin.ask(Method::PUT, &format!("{path}/trunks"), Some(json!({"trunks": "all"}))).await;
        assert_eq!(trunks.expect(200)["trunks"], "all");

        let revoked = admin.ask(Method::DELETE, &path, None).await.expect(200);
        assert_eq!(revoked["state"], "revoked");
        assert_eq!(key.get("/api/me").await.refused(401), "Invalid API key");
        assert_eq!(admin.post(&format!("{path}/revoke"), json!({})).await.expect(200)["state"], "revoked");
        assert!(!admin.post(&format!("{path}/rotate"), json!({})).await.refused(409).is_empty());

        let rows = admin.told(&id).await;
        let expected = ["key.revoke", "key.update", "key.update", "key.update", "key.credit", "key.create"];
        assert_eq!(actions(&rows), expected);
        assert!(rows.iter().all(|row| row["actor"] == admin.0.key_id.as_str()), "{rows:?}");
        assert!(rows.iter().all(|row| row["ip"] == "127.0.0.1"), "{rows:?}");
        assert_eq!(rows[3]["detail"]["name"], json!(["shop", "store"]));
        let log = std::fs::read_to_string(&world().await.server.process.log).expect("a log");
        for place in [serde_json::to_string(&rows).expect("text"), log] {
            assert!(!place.contains(&secret[8..]), "a key was written down");
        }
    });
}

#[test]
fn a_rotation_leaves_two_keys_alive() {
    go(async {
        let admin = Admin::of(&world().await.server);
        let first = admin.key(json!({})).await;
        let rotate = async || {
            let rotated = admin.post(&format!("/keys/{}/rotate", first.key_id), json!({})).await.expect(200);
            assert_ne!(rotated["webhookSecret"], first.webhook_secret.as_str());
            Key { key: rotated["key"].as_str().expect("a key").to_owned(), ..first.clone() }
        };
        let second = rotate().await;
        for key in [&first, &second] {
            assert_eq!(key.get("/api/me").await.expect(200)["apiKey"]["keyId"], first.key_id.as_str());
        }
        let third = rotate().await;
        first.get("/api/me").await.refused(401);
        second.get("/api/me").await.expect(200);
        third.get("/api/me").await.expect(200);
    });
}

#[test]
fn only_admin_keys_are_let_in() {
    go(async {
        let server = &world().await.server;
        let customer = server.key(&[]);
        for (method, path) in [
            (Method::GET, "/keys"),
            (Method::POST, "/keys"),
            (Method::GET, "/keys/key_0"),
            (Method::PATCH, "/keys/key_0"),
            (Method::DELETE, "/keys/key_0"),
            (Method::POST, "/keys/key_0/rotate"),
            (Method::POST, "/keys/key_0/revoke"),
            (Method::POST, "/keys/key_0/credit"),
            (Method::PUT, "/keys/key_0/trunks"),
            (Method::GET, "/tenants"),
            (Method::POST, "/tenants"),
            (Method::PATCH, "/tenants/default"),
            (Method::GET, "/numbers"),
            (Method::POST, "/numbers"),
            (Method::DELETE, "/numbers/+14155550100"),
            (Method::GET, "/sounds"),
            (Method::PUT, "/sounds/a.wav"),
            (Method::DELETE, "/sounds/a"),
            (Method::GET, "/audit"),
        ] {
            let path = format!("/admin/v1{path}");
            let nobody = send(bare(server.http, method.clone(), &path)).await;
            assert_eq!(nobody.refused(401), "Missing API key", "{path}");
            let refused = send(customer.request(method, &path)).await;
            assert_eq!(refused.refused(403), "Forbidden", "{path}");
        }
        let admin = Admin::of(server);
        assert_eq!(admin.ask(Method::GET, "/nothing", None).await.refused(404), "Not found");
        let wrong = admin.ask(Method::DELETE, "/keys", None).await;
        assert_eq!(
            (wrong.refused(405).as_str(), wrong.header("allow")),
            ("Method not allowed", "GET,HEAD,POST")
        );
        // A key of one surface may still be an operator's.
        let one = server.key(&["--admin", "--surfaces", "phony"]);
        send(one.request(Method::GET, "/admin/v1/keys")).await.expect(200);
        assert_eq!(one.get("/api/me").await.refused(403), "Forbidden");
    });
}

/// What is asked, and what is answered; `:key` stands for a key of one credit.
const WRONG: &str = r#"
POST /keys {} => 400 name is required
POST /keys [] => 400 Invalid JSON body
POST /keys {"name":"a","trunks":["nine"]} => 400 unknown trunk: nine
POST /keys {"name":"a","credits":"10"} => 400 credits must be an integer from 0 to 1000000000
POST /keys {"name":"a","surfaces":["telex"]} => 400 surfaces must hold only kaphila, phony, voxforge, hamming, claude-phone
PATCH /keys/key_0 {} => 404 Key not found
PATCH /keys/:key {"tenant":"TB"} => 400 tenant cannot be changed
PATCH /keys/:key {"countries":["+1"]} => 400 countries must hold only country calling codes such as 49
PATCH /keys/:key {"expiresAt":"2020-01-01"} => 400 expiresAt must be an ISO 8601 moment or day in the future
POST /keys/:key/credit {} => 400 delta is required
POST /keys/:key/credit {"delta":1.5} => 400 delta must be an integer from -1000000000 to 1000000000
POST /keys/:key/credit {"delta":-2} => 409 credits of :key would fall below what its calls hold
POST /keys/key_0/credit {"delta":1} => 404 Key not found
POST /keys/key_0/rotate {} => 404 Key not found
PUT /keys/:key/trunks {} => 400 trunks is required
PUT /keys/:key/trunks {"trunks":["nine"]} => 400 unknown trunk: nine
DELETE /keys/key_0 {} => 404 Key not found
POST /tenants {"name":"a"} => 400 subdomain is required
POST /tenants {"name":"a","subdomain":"A b"} => 400 subdomain must be 1 to 63 of a-z 0-9 - as in a host name
PATCH /tenants/none {} => 404 Tenant not found
PATCH /tenants/default {"status":"gone"} => 400 status must be trial, active or suspended
PATCH /tenants/default {"maxAgents":-1} => 400 maxAgents must be an integer from 0 to 1000000
POST /numbers {} => 400 phoneNumber is required
POST /numbers {"phoneNumber":"me"} => 400 phoneNumber must be in E.164 form
POST /numbers {"phoneNumber":"+1415","onCall":{}} => 400 onCall.action is required
POST /numbers {"phoneNumber":"+1415","onCall":{"action":"sing"}} => 400 onCall.action must be nothing, webhook, agent, play or echo
POST /numbers {"phoneNumber":"+1415","trunk":"nine"} => 400 unknown trunk: nine
PATCH /numbers/+19995550100 {} => 404 Number not found
DELETE /numbers/+19995550100 {} => 404 Number not found
DELETE /sounds/nowhere {} => 404 Sound not found
GET /keys?limit=0 {} => 400 limit must be an integer from 1 to 1000
GET /keys?state=new {} => 400 state must be active or revoked
GET /sounds?key=key_0 {} => 404 Key not found
GET /audit?from=yesterday {} => 400 from must be an ISO 8601 moment or day
GET /audit?action=% {} => 400 action must be a word such as key or key.create
"#;

#[test]
fn wrong_requests_are_refused_by_name() {
    go(async {
        let admin = Admin::of(&world().await.server);
        let key = admin.key(json!({"credits": 1})).await;
        for line in WRONG.replace(":key", &key.key_id).lines().filter(|line| !line.is_empty()) {
            let (asked, answered) = line.split_once(" => ").expect("an arrow");
            let mut asked = asked.splitn(3, ' ');
            let mut word = || asked.next().expect("method, path, body");
            let (method, path, body) = (word(), word(), word());
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            let answer = admin.ask(method, path, Some(serde_json::from_str(body).expect("JSON"))).await;
            let (status, text) = answered.split_once(' ').expect("status and text");
            assert_eq!(answer.refused(status.parse().expect("a status")), text, "{line}");
        }
    });
}

#[test]
fn a_suspended_tenant_is_locked_out_until_it_is_resumed() {
    go(async {
        let server = &world().await.server;
        let admin = Admin::of(server);
        let subdomain = unique("acme-");
        let new = json!({"name": "Acme", "subdomain": subdomain});
        let named = async |name: &str| {
            let request = admin.0.request(Method::POST, "/admin/v1/tenants").header("idempotency-key", name);
            send(request.body(new.to_string())).await
        };
        let made = named(&subdomain).await.expect(201);
        assert_eq!(named(&subdomain).await.expect(201), made, "a repeat is given the first answer");
        assert_eq!(named("another").await.refused(409), format!("subdomain {subdomain} is taken"));
        assert_eq!((&made["status"], &made["maxConcurrentCalls"]), (&json!("active"), &json!(200)));
        let id = made["id"].as_str().expect("an id");
        let key = admin.key(json!({"tenant": subdomain})).await;
        key.get("/api/me").await.expect(200);

        let path = format!("/tenants/{id}");
        assert_eq!(
            admin.patch(&path, json!({"status": "suspended"})).await.expect(200)["status"],
            "suspended"
        );
        assert_eq!(key.get("/api/me").await.refused(403), "Forbidden");
        assert_eq!(admin.get(&format!("/keys/{}", key.key_id)).await["state"], "suspended");
        admin.patch(&path, json!({"status": "active", "maxConcurrentCalls": 0})).await.expect(200);
        assert_eq!(place(&key, &number("0303")).await.refused(429), "Concurrent call limit reached");
        admin.patch(&path, json!({"maxConcurrentCalls": null})).await.expect(200);
        let call = key.call(&json!({"number": number("0303")})).await;
        key.hang_up(&call).await;
        let own = admin.patch("/tenants/default", json!({"status": "suspended"})).await;
        assert_eq!(own.refused(409), "A key cannot suspend its own tenant");
        let told = admin.told(id).await;
        assert_eq!(actions(&told), ["tenant.update", "tenant.update", "tenant.update", "tenant.create"]);
        assert!(admin.get("/tenants?limit=1").await["total"].as_i64() >= Some(2));
        assert_eq!(server.cli(&["tenants", "suspend", id])["status"], "suspended");
        assert_eq!(admin.told(id).await[0]["actor"], "cli");
    });
}

#[test]
fn numbers_are_imported_over_http_and_by_hand() {
    go(async {
        let server = &world().await.server;
        let admin = Admin::of(server);
        let (mine, other) = (number("7001"), number("7002"));
        let e164 = format!("+{mine}");
        let made = admin.post("/numbers", json!({"phoneNumber": e164, "trunk": "carrier"})).await.expect(201);
        assert_eq!((&made["phoneNumber"], &made["tenant"]), (&json!(e164), &json!("default")));
        assert_eq!((&made["onCall"], &made["trunk"]), (&json!({"action": "nothing"}), &json!("carrier")));
        let sid = made["twilioSid"].as_str().expect("a sid");
        assert!(sid.len() == 34 && sid.starts_with("PN"), "{sid}");
        let again = admin.post("/numbers", json!({"phoneNumber": e164})).await;
        assert_eq!(again.refused(409), format!("number {e164} is taken"));

        let path = format!("/numbers/{e164}");
        let key = admin.key(json!({})).await;
        let hook = json!({"action": "webhook", "url": "https://app.example/calls", "keyId": key.key_id});
        let changed =
            admin.patch(&path, json!({"onCall": hook, "friendlyName": "Front desk"})).await.expect(200);
        assert_eq!((&changed["onCall"], &changed["friendlyName"]), (&hook, &json!("Front desk")));
        assert_eq!(admin.get(&path.replace('+', "%2B")).await, changed);
        for (on_call, text) in [
            (
                json!({"action": "webhook", "url": "https://app.example", "keyId": "key_0"}),
                "onCall.keyId must be a live key of the number's tenant",
            ),
            (
                json!({"action": "webhook", "url": "http://10.0.0.1", "keyId": key.key_id}),
                "onCall.url must be an https URL",
            ),
            (json!({"action": "play", "sound": "../x"}), "onCall.sound must be the name of a sound"),
            (json!({"action": "agent"}), "onCall.agent is required"),
        ] {
            assert_eq!(admin.patch(&path, json!({"onCall": on_call})).await.refused(400), text);
        }
        let echo = server.cli(&["numbers", "add", &format!("+{other}"), "--tenant", "TN", "--echo"]);
        let names: Vec<_> = echo.as_object().expect("an object").keys().collect();
        assert_eq!(names, ["id", "phone_number", "tenant", "twilio_sid"]);
        let list = admin.get("/numbers?tenant=TN").await;
        assert_eq!((&list["total"], &list["numbers"][0]["onCall"]), (&json!(1), &json!({"action": "echo"})));
        assert_eq!(admin.ask(Method::DELETE, &path, None).await.expect(200), json!({"removed": true}));
        assert_eq!(admin.ask(Method::GET, &path, None).await.refused(404), "Number not found");
        server.cli(&["numbers", "remove", &format!("+{other}")]);
        assert_eq!(actions(&admin.told(&e164).await), ["number.remove", "number.update", "number.create"]);
        assert_eq!(admin.told(&format!("+{other}")).await[0]["actor"], "cli");
    });
}

#[test]
fn sounds_are_taken_in_played_and_given_up() {
    go(async {
        let server = &world().await.server;
        let admin = Admin::of(server);
        let key = admin.key(json!({})).await;
        let name = unique("prompts/welcome");
        let folder = server.home.join("uploads");
        std::fs::create_dir_all(&folder).expect("it can be written");
        crate::audio::write_wav(&folder.join("a.wav"), &crate::audio::chirp(1.5));
        let wav = std::fs::read(folder.join("a.wav")).expect("it was written");
        let put = async |path: &str, bytes: Vec<u8>| {
            send(admin.0.request(Method::PUT, &format!("/admin/v1/sounds/{path}")).body(bytes)).await
        };
        let call = key.answered_call(&json!({"number": number("0100")})).await;
        let play = async || key.post("/play", &json!({"callId": call, "file": name})).await;
        assert_eq!(play().await.refused(404), "Sound file not found");
        let made = put(&format!("{name}.wav"), wav.clone()).await.expect(201);
        assert_eq!((&made["name"], &made["format"]), (&json!(name), &json!("wav")));
        assert_eq!((&made["durationMs"], &made["bytes"]), (&json!(1500), &json!(wav.len())));
        play().await.expect(200);

        // A key's own sound comes before the shared one of its name.
        let own = format!("{name}.ulaw?key={}", key.key_id);
        assert_eq!(put(&own, vec![0xff; 4000]).await.expect(201)["durationMs"], 500);
        let list = admin.get(&format!("/sounds?key={}", key.key_id)).await;
        assert_eq!((&list["total"], &list["sounds"][0]["durationMs"]), (&json!(1), &json!(500)));
        assert_eq!(put(&format!("{name}.alaw"), vec![0xd5; 8000]).await.expect(200)["format"], "alaw");
        let shared = admin.get("/sounds?limit=1000").await;
        let rows: Vec<_> =
            shared["sounds"].as_array().expect("rows").iter().filter(|s| s["name"] == *name).collect();
        assert_eq!((rows.len(), &rows[0]["format"]), (1, &json!("alaw")), "{shared}");

        for (path, bytes, status) in [
            ("a.wav", b"RIFF and nothing more".to_vec(), 400),
            ("a.exe", wav.clone(), 400),
            ("..%2F..%2Fa.wav", wav.clone(), 400),
            ("key_1/a.wav", wav.clone(), 400),
            ("a.wav?key=key_0", wav.clone(), 404),
            ("a.ulaw", vec![0xff; 10 * 1024 * 1024 + 1], 413),
            ("a.ulaw", Vec::new(), 400),
        ] {
            assert!(!put(path, bytes).await.refused(status).is_empty(), "{path}");
        }
        let gone = admin.ask(Method::DELETE, &format!("/sounds/{name}"), None).await.expect(200);
        assert_eq!(gone, json!({"removed": 1}));
        play().await.expect(200);
        admin.ask(Method::DELETE, &format!("/sounds/{name}?key={}", key.key_id), None).await.expect(200);
        assert_eq!(play().await.refused(404), "Sound file not found");
        let told = admin.told(&name).await;
        let expected = ["sound.remove", "sound.remove", "sound.put", "sound.put", "sound.put"];
        assert_eq!(actions(&told), expected);
        key.hang_up(&call).await;
    });
}

#[test]
fn the_log_is_read_in_pages() {
    go(async {
        let admin = Admin::of(&world().await.server);
        let key = admin.key(json!({})).await;
        for n in 1..=4 {
            admin.post(&format!("/keys/{}/credit", key.key_id), json!({"delta": n})).await.refused(409);
            admin.patch(&format!("/keys/{}", key.key_id), json!({"rateLimit": n})).await.expect(200);
        }
        let query = format!("/audit?subject={}&actor={}&limit=2", key.key_id, admin.0.key_id);
        let first = admin.get(&query).await;
        assert_eq!(first["entries"].as_array().map(Vec::len), Some(2));
        let second = admin.get(&format!("{query}&before={}", first["next"])).await;
        let third = admin.get(&format!("{query}&before={}", second["next"])).await;
        assert_eq!((third["entries"].as_array().map(Vec::len), &third["next"]), (Some(1), &Value::Null));
        assert_eq!(third["entries"][0]["action"], "key.create");
        let none = admin.get(&format!("{query}&to=2020-01-01")).await;
        assert_eq!(none["entries"], json!([]));
        let some = admin.get(&format!("{query}&action=key.update&from=2020-01-01")).await;
        assert_eq!(some["entries"].as_array().map(Vec::len), Some(2));
    });
}

/// One `Idempotency-Key` on two surfaces names two requests, also where their paths end alike.
#[test]
fn a_repeat_is_one_on_its_own_surface_only() {
    go(async {
        let admin = Admin::of(&world().await.server);
        let name = unique("repeat-");
        let body = json!({"name": "Repeated", "subdomain": name}).to_string();
        let ask = async |path: &str| {
            let request = admin.0.request(Method::POST, path).header("idempotency-key", &name);
            let answer = send(request.body(body.clone())).await;
            (answer.status, answer.header("idempotent-replayed").to_owned())
        };
        assert_eq!(ask("/admin/v1/tenants").await, (201, String::new()));
        assert_eq!(ask("/admin/v1/tenants").await, (201, "true".to_owned()));
        assert_eq!(ask("/tenants").await.1, "");
        assert_eq!(ask("/phony/tenants").await.1, "true");
    });
}
