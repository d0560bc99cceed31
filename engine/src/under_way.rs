//! What a part of the engine waits for from trackers: its own names for look-ups, requests and questions, by those of the
//! engine.

use std::collections::BTreeMap;

use crate::context::{Asker, Context};
use crate::exchange::{Call, Token};
use crate::ids::{HttpId, ResolveId};
use crate::udp_trackers::UdpAskId;

/// Everything that is under way for one asker.
#[derive(Debug, Default)]
pub(crate) struct UnderWay {
    lookups: BTreeMap<ResolveId, Token>,
    requests: BTreeMap<HttpId, Token>,
    questions: BTreeMap<UdpAskId, Token>,
}

impl UnderWay {
    /// Sends a call out.
    pub(crate) fn call(&mut self, context: &mut Context<'_>, asker: Asker, token: Token, call: Call) {
        match call {
            Call::Resolve(host) => {
                self.lookups.insert(context.resolve(asker, host), token);
            }
            Call::Get(get) => {
                self.requests.insert(context.http_get(asker, *get), token);
            }
            Call::Udp(target, ask) => {
                self.questions.insert(context.ask_udp(asker, target, ask), token);
            }
        }
    }

    /// Forgets a call, wherever it is.
    pub(crate) fn cancel(&mut self, context: &mut Context<'_>, token: Token) {
        self.lookups.retain(|_, other| *other != token);
        self.requests.retain(|request, other| {
            let keep = *other != token;
            if !keep {
                context.cancel_http(*request);
            }
            keep
        });
        self.questions.retain(|question, other| {
            let keep = *other != token;
            if !keep {
                context.cancel_udp(*question);
            }
            keep
        });
    }

    pub(crate) fn take_lookup(&mut self, query: ResolveId) -> Option<Token> {
        self.lookups.remove(&query)
    }

    pub(crate) fn take_request(&mut self, request: HttpId) -> Option<Token> {
        self.requests.remove(&request)
    }

    pub(crate) fn take_question(&mut self, question: UdpAskId) -> Option<Token> {
        self.questions.remove(&question)
    }
}
