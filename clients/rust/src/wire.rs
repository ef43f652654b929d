//! Calls of Flight, authorized and with their answers taken apart.

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{Any, DoPutUpdateResult, ProstMessageExt};
use arrow_flight::{Action, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, IpcMessage};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use prost::Message;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};

use crate::error::{Error, Result};
use crate::resend::Resending;
use crate::rows::Rows;
use crate::tls::Tls;

/// Bytes of a message that the server may send; a single wide row can be larger than gRPC's default of 4 MiB.
const RECEIVE_BYTES_MAX: usize = 256 << 20;

/// A connection with the token of a session. Clones share both.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    flight: FlightServiceClient<Resending>,
    authorization: AsciiMetadataValue,
}

impl Wire {
    pub(crate) async fn connect(uri: &str, user: &str, password: &str, tls: &Tls) -> Result<Self> {
        let no_address = |error| Error::caused(Code::InvalidArgument, format!("'{uri}' is no address"), error);
        let address = http_uri(uri)?;
        let endpoint = Endpoint::from_shared(address.uri).and_then(|endpoint| endpoint.user_agent("seracdb-client"));
        let endpoint = endpoint
            .map_err(no_address)?
            .tcp_nodelay(true)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20);
        let channel = match address.is_tls {
            true => {
                let connector = tls.connector()?;
                endpoint.connect_with_connector(tower::service_fn(move |uri| connector.clone().connect(uri))).await
            }
            false if tls.is_default() => endpoint.connect().await,
            false => {
                let text = format!("'{uri}' is without TLS: use grpc+tls://HOST:PORT");
                return Err(Error::new(Code::InvalidArgument, text));
            }
        };
        let channel = channel.map_err(|error| {
            let text = format!("cannot connect to {uri}: is the server running? ({})", root_cause(&error));
            Error::caused(Code::Unavailable, text, error)
        })?;
        let flight = FlightServiceClient::new(Resending(channel)).max_decoding_message_size(RECEIVE_BYTES_MAX);
        let authorization = log_in(flight.clone(), user, password).await?;
        Ok(Self { flight, authorization })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.authorization.clone());
        request
    }

    /// GetFlightInfo and DoGet.
    pub(crate) async fn get(&self, command: &impl ProstMessageExt) -> Result<Rows> {
        let info = self.flight.clone().get_flight_info(self.request(descriptor(command))).await?.into_inner();
        self.fetch(info).await
    }

    async fn fetch(&self, info: FlightInfo) -> Result<Rows> {
        let schema = schema_in(info.schema)?;
        let mut streams = Vec::with_capacity(info.endpoint.len());
        for endpoint in info.endpoint {
            let ticket = endpoint.ticket.ok_or_else(|| Error::answer("an endpoint has no ticket"))?;
            streams.push(self.flight.clone().do_get(self.request(ticket)).await?.into_inner());
        }
        Ok(Rows::new(schema, stream::iter(streams).flatten()))
    }

    /// DoPut of a command without data; gives its result's bytes.
    pub(crate) async fn put(&self, command: &impl ProstMessageExt) -> Result<Bytes> {
        let message = FlightData { flight_descriptor: Some(descriptor(command)), ..Default::default() };
        self.put_messages(stream::iter([message])).await
    }

    /// DoPut of a command with batches; gives its result's bytes. An error of `batches` ends the call with that error.
    pub(crate) async fn put_batches(
        &self,
        command: &impl ProstMessageExt,
        schema: SchemaRef,
        batches: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
    ) -> Result<Bytes> {
        let (failed, failure) = futures::channel::oneshot::channel();
        let encoded = FlightDataEncoderBuilder::new()
            .with_schema(schema)
            .with_flight_descriptor(Some(descriptor(command)))
            .build(
                batches
                    .map(|batch| batch.map_err(|error| arrow_flight::error::FlightError::ExternalError(error.into()))),
            );
        let mut failed = Some(failed);
        // A request stream of gRPC cannot carry an error. Ending it quietly would commit half of the rows, so it
        // never ends: the call is dropped, and with it cancelled, once the failure is known.
        let messages = encoded.filter_map(move |message| {
            let sent = match message {
                Ok(message) => Some(message),
                Err(error) => {
                    if let Some(failed) = failed.take() {
                        let _ = failed.send(error);
                    }
                    None
                }
            };
            let failing = failed.is_none();
            async move {
                if failing {
                    std::future::pending::<()>().await;
                }
                sent
            }
        });
        let call = std::pin::pin!(self.put_messages(messages));
        match futures::future::select(call, failure).await {
            futures::future::Either::Left((answer, _)) => answer,
            futures::future::Either::Right((Ok(error), _)) => Err(input_error(error)),
            // All of the input was sent.
            futures::future::Either::Right((Err(_), call)) => call.await,
        }
    }

    async fn put_messages(&self, messages: impl Stream<Item = FlightData> + Send + 'static) -> Result<Bytes> {
        let mut answers = self.flight.clone().do_put(self.request(messages)).await?.into_inner();
        let answer = answers.message().await?.ok_or_else(|| Error::answer("DoPut gave no result"))?;
        Ok(answer.app_metadata)
    }

    /// DoAction of a Flight SQL message; gives its one answer.
    pub(crate) async fn ask<M: Message + Default>(&self, name: &str, request: &impl ProstMessageExt) -> Result<M> {
        let bodies = self.action(name, request.as_any().encode_to_vec()).await?;
        let body = bodies.first().ok_or_else(|| Error::answer(format!("the server did not answer {name}")))?;
        message_in(body)
    }

    /// DoAction with a body as it is; gives the bodies of the results.
    pub(crate) async fn action(&self, name: &str, body: Vec<u8>) -> Result<Vec<Bytes>> {
        let action = Action { r#type: name.to_owned(), body: body.into() };
        let mut results = self.flight.clone().do_action(self.request(action)).await?.into_inner();
        let mut bodies = Vec::new();
        while let Some(result) = results.message().await? {
            bodies.push(result.body);
        }
        Ok(bodies)
    }
}

/// The error of the batches to send, as it was.
fn input_error(error: arrow_flight::error::FlightError) -> Error {
    match error {
        arrow_flight::error::FlightError::ExternalError(source) => match source.downcast::<Error>() {
            Ok(error) => *error,
            Err(source) => Error::caused(Code::InvalidArgument, "the batches to send failed", source),
        },
        other => Error::caused(Code::InvalidArgument, "the batches cannot be encoded", other),
    }
}

async fn log_in(mut flight: FlightServiceClient<Resending>, user: &str, password: &str) -> Result<AsciiMetadataValue> {
    let mut request = Request::new(stream::iter([HandshakeRequest::default()]));
    let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
    let basic: AsciiMetadataValue =
        basic.parse().map_err(|_| Error::new(Code::InvalidArgument, "no such user name"))?;
    request.metadata_mut().insert("authorization", basic);
    let response = flight.handshake(request).await?;
    let token = response.metadata().get("authorization").cloned();
    token.ok_or_else(|| Error::answer("the server gave no token: is it a SeracDB server?"))
}

/// An address as gRPC has it.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    uri: String,
    is_tls: bool,
}

fn http_uri(uri: &str) -> Result<Address> {
    let (scheme, rest) = uri.split_once("://").unwrap_or(("grpc", uri));
    match scheme {
        "grpc" | "grpc+tcp" | "http" => Ok(Address { uri: format!("http://{rest}"), is_tls: false }),
        "grpc+tls" | "grpcs" | "https" => Ok(Address { uri: format!("https://{rest}"), is_tls: true }),
        _ => {
            let text = format!("'{uri}' is no address: use grpc://HOST:PORT or grpc+tls://HOST:PORT");
            Err(Error::new(Code::InvalidArgument, text))
        }
    }
}

/// What is behind an error: "transport error" says nothing of certificates.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

fn descriptor(command: &impl ProstMessageExt) -> FlightDescriptor {
    FlightDescriptor::new_cmd(command.as_any().encode_to_vec())
}

/// The count in an update's result; a server that does not know it says −1, which is 0 here.
pub(crate) fn record_count(answer: &Bytes) -> Result<u64> {
    let result = DoPutUpdateResult::decode(answer.clone())?;
    Ok(u64::try_from(result.record_count).unwrap_or(0))
}

/// The message inside an `Any`, whatever its type's name.
fn message_in<M: Message + Default>(bytes: &[u8]) -> Result<M> {
    Ok(M::decode(Any::decode(bytes)?.value)?)
}

/// A schema from its IPC message; no bytes are no columns.
pub(crate) fn schema_in(bytes: Bytes) -> Result<SchemaRef> {
    if bytes.is_empty() {
        return Ok(SchemaRef::new(Schema::empty()));
    }
    Ok(SchemaRef::new(Schema::try_from(IpcMessage(bytes))?))
}

/// Makes a stream of gRPC's one of Flight's.
pub(crate) fn flight_errors(
    messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
) -> impl Stream<Item = Result<FlightData, arrow_flight::error::FlightError>> + Send + 'static {
    messages.map(|message| message.map_err(Into::into))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let plain = Address { uri: "http://h:1".into(), is_tls: false };
        assert_eq!(http_uri("grpc://h:1").unwrap(), plain);
        assert_eq!(http_uri("grpc+tcp://h:1").unwrap(), plain);
        assert_eq!(http_uri("h:1").unwrap(), plain);
        assert_eq!(http_uri("grpc+tls://h:1").unwrap(), Address { uri: "https://h:1".into(), is_tls: true });
        assert_eq!(http_uri("ftp://h:1").unwrap_err().code(), Code::InvalidArgument);
    }
}
