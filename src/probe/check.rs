//! One check of one server, whatever it speaks.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::timeout;

use super::command::{self, Asker};
use super::connection::{Connection, Failure};
use super::exchange::{Exchange, Pattern};
use super::{dns, grpc, http, mysql, postgres, redis, smtp, tls, udp};
use crate::config::{Check, Expected, Health, Role};
use crate::proxy::upstream::dial::Dialer;

/// Time for the guard to kill a command and to say so.
const COMMAND_GRACE: Duration = Duration::from_millis(300);

/// Checks a server, and keeps the connection for the next check where the protocol has more than one question on it.
pub(super) struct Checker<'p> {
    health: &'p Health,
    dialer: &'p Dialer,
    address: SocketAddr,
    pattern: Option<Pattern>,
    /// Logged in.
    kept: Option<Exchange>,
    /// Of HTTP.
    kept_http: Option<Connection>,
}

impl<'p> Checker<'p> {
    /// For a server of this address, in a pool that `dialer` reaches.
    pub(super) fn new(health: &'p Health, dialer: &'p Dialer, server: SocketAddr) -> Self {
        let way = &health.way;
        let address =
            SocketAddr::new(way.address.unwrap_or_else(|| server.ip()), way.port.unwrap_or_else(|| server.port()));
        Self {
            health,
            dialer,
            address,
            pattern: expected(&health.check).and_then(Pattern::new),
            kept: None,
            kept_http: None,
        }
    }

    /// One check that the worker makes itself: what the server said, or why it failed, in words.
    pub(super) async fn check(&mut self) -> Result<String, String> {
        let patience = self.health.timeout;
        let checked = timeout(patience, self.ask()).await;
        checked.unwrap_or_else(|_| {
            self.kept = None;
            Err(format!("no answer within {} ms", patience.as_millis()))
        })
    }

    /// One check that the guard makes.
    pub(super) async fn check_by_command(&self, asker: &Asker, pool: &str, server: &str) -> Result<String, String> {
        // The guard keeps the time, and says more about what it had to kill.
        let patience = self.health.timeout + COMMAND_GRACE;
        let checked = timeout(patience, command::ask(asker, pool, server, self.address)).await;
        checked.unwrap_or_else(|_| Err("the guard does not say how it ended".to_owned()))
    }

    async fn ask(&mut self) -> Result<String, String> {
        let (dialer, address) = (self.dialer.for_checks(), self.address);
        match &self.health.check {
            Check::Http(_) | Check::Grpc { .. } => self.ask_over_http().await,
            Check::Tcp { send, .. } => self.exchange_bytes(dialer, send).await,
            Check::Tls { expires_within, fails } => tls::ask(dialer, address, *expires_within, *fails).await,
            Check::Dns(check) => dns::ask(address, check).await,
            Check::Udp { send, .. } => udp::ask(address, send, self.pattern.as_ref(), self.health.timeout).await,
            Check::Postgres { user, database, role } => self.ask_postgres(user, database, *role).await,
            Check::Mysql { user, role } => self.ask_mysql(user.as_deref(), *role).await,
            Check::Redis { user, role } => self.ask_redis(user.as_deref(), *role).await,
            Check::Smtp => smtp::ask(&mut Exchange::dial(dialer, address).await?).await,
            Check::Command(_) => Err("the guard runs it".to_owned()),
        }
    }

    async fn ask_over_http(&mut self) -> Result<String, String> {
        if let Some(mut kept) = self.kept_http.take()
            && kept.is_fit()
        {
            match self.ask_on(&mut kept).await {
                // The server may have closed it just now, which says nothing.
                Err(Failure::Broken(_)) => {}
                Err(Failure::Answer(reason)) => return Err(reason),
                Ok(said) => {
                    self.kept_http = Some(kept);
                    return Ok(said);
                }
            }
        }
        let mut connection = Connection::dial(self.dialer.for_checks(), self.address).await?;
        let said = self.ask_on(&mut connection).await.map_err(Failure::into_reason)?;
        self.kept_http = Some(connection);
        Ok(said)
    }

    async fn ask_on(&self, connection: &mut Connection) -> Result<String, Failure> {
        match &self.health.check {
            Check::Grpc { service, host } => grpc::ask(connection, self.address, service, host.as_deref()).await,
            Check::Http(check) => http::ask(connection, self.address, check, self.pattern.as_ref()).await,
            _ => Err(Failure::Answer("it is no check over HTTP".to_owned())),
        }
    }

    async fn exchange_bytes(&self, dialer: &Dialer, send: &[u8]) -> Result<String, String> {
        let mut exchange = Exchange::dial(dialer, self.address).await?;
        if !send.is_empty() {
            exchange.send(send).await?;
        }
        match &self.pattern {
            None => Ok("connected".to_owned()),
            Some(pattern) => exchange.expect(pattern).await.map(|()| "the answer that is expected".to_owned()),
        }
    }

    async fn ask_postgres(&mut self, user: &str, database: &str, role: Role) -> Result<String, String> {
        if let Some(mut kept) = self.take_kept()
            && let Ok(answer) = postgres::ask(&mut kept).await
        {
            self.kept = Some(kept);
            return answer.judged(role);
        }
        let password = self.dialer.check_password();
        let password = password.as_ref().map(|password| password.as_str());
        let mut exchange = postgres::dial(self.dialer.for_checks(), self.address).await?;
        if !postgres::log_in(&mut exchange, user, database, password).await? {
            // It lives, and more than that was not asked for.
            return match role {
                Role::Any => Ok("PostgreSQL asks for a password".to_owned()),
                Role::Primary | Role::Replica => Err("PostgreSQL asks for a password: set password_file".to_owned()),
            };
        }
        let answer = postgres::ask(&mut exchange).await?;
        self.kept = Some(exchange);
        answer.judged(role)
    }

    async fn ask_mysql(&mut self, user: Option<&str>, role: Role) -> Result<String, String> {
        if let Some(mut kept) = self.take_kept()
            && let Ok(answer) = mysql::ask(&mut kept, role).await
        {
            self.kept = Some(kept);
            return answer.judged(role);
        }
        let password = self.dialer.check_password();
        let password = password.as_ref().map(|password| password.as_str());
        let mut exchange = Exchange::dial(self.dialer.for_checks(), self.address).await?;
        let greeting = mysql::greeting(&mut exchange).await?;
        let Some(user) = user else { return Ok(format!("MySQL {}", greeting.version)) };
        mysql::log_in(&mut exchange, &greeting, user, password).await?;
        let answer = mysql::ask(&mut exchange, role).await?;
        self.kept = Some(exchange);
        answer.judged(role)
    }

    async fn ask_redis(&mut self, user: Option<&str>, role: Role) -> Result<String, String> {
        if let Some(mut kept) = self.take_kept()
            && let Ok(answer) = redis::ask(&mut kept, role).await
        {
            self.kept = Some(kept);
            return answer.judged(role);
        }
        let password = self.dialer.check_password();
        let password = password.as_ref().map(|password| password.as_str());
        let mut exchange = Exchange::dial(self.dialer.for_checks(), self.address).await?;
        redis::log_in(&mut exchange, user, password).await?;
        let answer = redis::ask(&mut exchange, role).await?;
        self.kept = Some(exchange);
        answer.judged(role)
    }

    /// The connection of the last check. One that has failed is followed by a new one within the same check: the server may
    /// have closed it since, and that says nothing.
    fn take_kept(&mut self) -> Option<Exchange> {
        self.kept.take().and_then(|mut kept| kept.begin().then_some(kept))
    }
}

fn expected(check: &Check) -> Option<&Expected> {
    match check {
        Check::Http(check) => check.body.as_ref(),
        Check::Tcp { expect, .. } | Check::Udp { expect, .. } => expect.as_ref(),
        _ => None,
    }
}
