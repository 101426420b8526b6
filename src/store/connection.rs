//! A connection to the store: one server or a cluster, with the few commands that sessions need.

use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue, IntoConnectionInfo, RedisError,
    RedisResult, TlsCertificates, cmd,
};

use super::Settings;
use super::entry::REMOVED;
use crate::config::StoreUrl;

/// Sets unless there is an entry, in one step: what stands, or nothing when it is the new one. A script and not SET with NX
/// and GET, which Redis has from version 7 only, and which cannot write over the mark of a removal.
const CLAIM: &str = "local v = redis.call('GET', KEYS[1]) if v and v ~= ARGV[3] then return v end \
                     redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return false";

/// How often a request of a cluster is sent on to another node, as slots move.
const REDIRECTS_MAX: u32 = 3;
const REDIRECT_WAIT_MS: u64 = 10;
/// Life of the entry by which a new connection is tried.
const TRIAL_LIFE: Duration = Duration::from_secs(1);
/// What is shown of an error.
const REASON_MAX: usize = 200;

/// A connection. Clones share it, and what they send goes out in the order of their calls.
#[derive(Clone)]
pub(super) enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    /// Connects, and tries that entries can be written and read. Not bounded in time.
    ///
    /// # Errors
    /// In words, without secrets.
    pub(super) async fn open(settings: &Settings) -> Result<Self, String> {
        let mut connection = Self::connect(settings).await.map_err(|error| reason(&error))?;
        connection.try_out(&settings.prefix).await?;
        Ok(connection)
    }

    async fn connect(settings: &Settings) -> RedisResult<Self> {
        let certificates = TlsCertificates { client_tls: None, root_cert: settings.ca_pem.clone() };
        let infos = settings.urls.iter().map(|url| info(url, settings)).collect::<RedisResult<Vec<_>>>()?;
        let is_tls = settings.urls.iter().any(|url| url.is_tls);
        if settings.is_cluster {
            let mut builder = ClusterClientBuilder::new(infos)
                .retries(REDIRECTS_MAX)
                .min_retry_wait(REDIRECT_WAIT_MS)
                .max_retry_wait(REDIRECT_WAIT_MS)
                .connection_timeout(super::OPEN_TIMEOUT)
                .response_timeout(settings.background_timeout());
            if is_tls {
                builder = builder.certs(certificates);
            }
            return Ok(Self::Cluster(builder.build()?.get_async_connection().await?));
        }
        let info = infos.into_iter().next().ok_or_else(|| RedisError::from(std::io::Error::other("no URL")))?;
        let client = if is_tls { Client::build_with_tls(info, certificates)? } else { Client::open(info)? };
        // Every request has a deadline of its own.
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        Ok(Self::One(client.get_multiplexed_async_connection_with_config(&config).await?))
    }

    /// A store that cannot be written to, such as a replica, or whose user may not use it, is found now and not when a
    /// client waits.
    async fn try_out(&mut self, prefix: &str) -> Result<(), String> {
        let name = format!("{prefix}trial");
        self.put(&name, "1", TRIAL_LIFE).await?;
        self.claim(&name, "1", TRIAL_LIFE).await?;
        self.touch(&name, TRIAL_LIFE).await?;
        self.get(&name).await?;
        self.delete(&name).await
    }

    pub(super) async fn get(&mut self, name: &str) -> Result<Option<Vec<u8>>, String> {
        self.query(cmd("GET").arg(name)).await
    }

    /// What stood there already; `None` when it is the new text now.
    pub(super) async fn claim(&mut self, name: &str, text: &str, life: Duration) -> Result<Option<Vec<u8>>, String> {
        let mut claim = cmd("EVAL");
        claim.arg(CLAIM).arg(1).arg(name).arg(text).arg(millis(life)).arg(REMOVED);
        self.query(&claim).await
    }

    pub(super) async fn put(&mut self, name: &str, text: &str, life: Duration) -> Result<(), String> {
        self.query(cmd("SET").arg(name).arg(text).arg("PX").arg(millis(life))).await
    }

    pub(super) async fn touch(&mut self, name: &str, life: Duration) -> Result<(), String> {
        self.query(cmd("PEXPIRE").arg(name).arg(millis(life))).await
    }

    pub(super) async fn delete(&mut self, name: &str) -> Result<(), String> {
        self.query(cmd("DEL").arg(name)).await
    }

    pub(super) async fn ping(&mut self, prefix: &str) -> Result<(), String> {
        // Not PING, which a cluster's client sends to any node, and one whose disk is full still answers.
        self.get(&format!("{prefix}trial")).await.map(drop)
    }

    async fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, String> {
        let answer = match self {
            Self::One(connection) => connection.req_packed_command(command).await,
            Self::Cluster(connection) => connection.req_packed_command(command).await,
        };
        let value = answer.and_then(redis::Value::extract_error).map_err(|error| reason(&error))?;
        T::from_redis_value(value).map_err(|_| format!("the answer to {} makes no sense", name_of(command)))
    }
}

fn info(url: &StoreUrl, settings: &Settings) -> RedisResult<ConnectionInfo> {
    let (host, port) = (url.host.clone(), url.port);
    let addr = match url.is_tls {
        true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
        false => ConnectionAddr::Tcp(host, port),
    };
    let info = addr.into_connection_info()?;
    let mut redis = info.redis_settings().clone().set_db(i64::from(url.database)).set_lib_name("baton", VERSION);
    if let Some(username) = &settings.username {
        redis = redis.set_username(username);
    }
    if let Some(password) = &settings.password {
        redis = redis.set_password(password);
    }
    Ok(info.set_redis_settings(redis))
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn millis(life: Duration) -> u64 {
    u64::try_from(life.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn name_of(command: &Cmd) -> String {
    let first = command.args_iter().next();
    match first {
        Some(redis::Arg::Simple(name)) => String::from_utf8_lossy(name).into_owned(),
        _ => "a command".to_owned(),
    }
}

/// What went wrong, in one short line: a server may send anything.
fn reason(error: &RedisError) -> String {
    let text = error.to_string();
    let shown = text.chars().filter(|c| !c.is_control()).take(REASON_MAX);
    shown.collect()
}
