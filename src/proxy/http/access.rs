//! Who may come in: the steps of a request that ask. By address before anything else, by password and by the word of another
//! server once its route is known.

use std::rc::Rc;

use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};

use super::body::ResponseBody;
use super::client::Client;
use super::headers;
use super::respond::{self, Fault};
use super::transaction::Transaction;
use crate::config::OnAuthorizeError;
use crate::proxy::access::basic::{BasicAuth, Refused};
use crate::proxy::access::external::{External, Word};
use crate::proxy::refusals::Reason;

/// The answer to a client whose address the listener does not let in.
pub fn admit(transaction: &Transaction) -> Option<Response<ResponseBody>> {
    let lists = transaction.client.listener()?.access.lists.as_ref()?;
    (!lists.admit(transaction.ip)).then(|| shut_out(&transaction.client))
}

/// The answer to a request that does not come in. Its route is known by now.
pub async fn authorize<B>(transaction: &mut Transaction, request: &mut Request<B>) -> Option<Response<ResponseBody>> {
    let (client, route) = (Rc::clone(&transaction.client), transaction.route);
    let access = &client.listener()?.access;
    if !access.admits_to(route, transaction.ip) {
        return Some(shut_out(&client));
    }
    // Boxed: requests that are not asked would carry the room for it about.
    if let Some(basic) = access.basic_auth(route)
        && let Some(refusal) = Box::pin(by_password(basic, transaction, request)).await
    {
        return Some(refusal);
    }
    match access.external(route) {
        Some(external) => Box::pin(by_word_of(external, transaction, request)).await,
        None => {
            remove_all(request, &access.word.once_asked);
            None
        }
    }
}

fn remove_all<B>(request: &mut Request<B>, names: &[HeaderName]) {
    for name in names {
        request.headers_mut().remove(name);
    }
}

fn denied() -> Fault {
    Fault { error: "http_request_denied", server: None }
}

fn shut_out(client: &Client) -> Response<ResponseBody> {
    client.refused(Reason::Address);
    respond::own(client, StatusCode::FORBIDDEN, "this address is not let in", Some(denied()))
}

async fn by_password<B>(
    basic: &BasicAuth,
    transaction: &mut Transaction,
    request: &mut Request<B>,
) -> Option<Response<ResponseBody>> {
    let client = Rc::clone(&transaction.client);
    let mut sent = request.headers().get_all(header::AUTHORIZATION).iter();
    let user = match (sent.next(), sent.next()) {
        (Some(authorization), None) => basic.user(client.thread(), client.deadlines(), authorization).await,
        // Two of them could be understood as one or the other.
        (Some(_), Some(_)) | (None, _) => Err(Refused::Unknown),
    };
    match user {
        Ok(user) => {
            transaction.user = Some(user);
            if !basic.is_passed_on() {
                request.headers_mut().remove(header::AUTHORIZATION);
            }
            None
        }
        Err(Refused::Unknown) => {
            client.refused(Reason::BasicAuth);
            let message = "a name and a password are needed";
            let mut response = respond::own(&client, StatusCode::UNAUTHORIZED, message, Some(denied()));
            response.headers_mut().insert(header::WWW_AUTHENTICATE, basic.challenge().clone());
            Some(response)
        }
        Err(Refused::Busy) => {
            client.refused(Reason::BasicAuthBusy);
            let message = "too many passwords are being verified";
            let mut response = respond::own(&client, StatusCode::SERVICE_UNAVAILABLE, message, Some(denied()));
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            Some(response)
        }
    }
}

async fn by_word_of<B>(
    external: &External,
    transaction: &Transaction,
    request: &mut Request<B>,
) -> Option<Response<ResponseBody>> {
    let word = external.ask(transaction, request).await;
    // What servers believe of it, nobody else can say.
    remove_all(request, external.response_headers());
    if let Some(listener) = transaction.client.listener() {
        remove_all(request, &listener.access.word.once_asked);
    }
    match &word {
        Word::Allowed(_) => {}
        Word::Refused(_) => transaction.client.refused(Reason::Authorize),
        Word::Silent(_) => transaction.client.refused(Reason::AuthorizeError),
    }
    match word {
        Word::Allowed(fields) => {
            let mut named = None;
            for (name, value) in fields {
                named = name.or(named);
                if let Some(name) = &named {
                    request.headers_mut().append(name.clone(), value);
                }
            }
            None
        }
        Word::Refused(response) => {
            let mut response = response.map(ResponseBody::text);
            headers::to_client(response.headers_mut());
            *response.version_mut() = http::Version::HTTP_11;
            Some(response)
        }
        Word::Silent(_) if external.on_error() == OnAuthorizeError::Allow => None,
        Word::Silent(error) => {
            let fault = Fault { error, server: Some(external.host().to_owned()) };
            let message = "nobody can say now whether this request may come in";
            Some(respond::own(&transaction.client, StatusCode::SERVICE_UNAVAILABLE, message, Some(fault)))
        }
    }
}
