//! Containers of futures as arguments.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::Arc,
};

use remuda_core::{
    error::Result,
    task::{Outcome, TaskError},
    value::Template,
};
use serde::Serialize;

use super::{Arg, ArgInput, Node, input, read};
use crate::future::TaskFuture;

impl<T: Send + Sync + 'static> Arg<T> {
    /// A list of arguments of one type: values and futures in any mixture.
    pub fn list<A: Into<Arg<T>>>(items: impl IntoIterator<Item = A>) -> Arg<Vec<T>>
    where
        T: Clone + Serialize,
    {
        let items: Vec<Arg<T>> = items.into_iter().map(Into::into).collect();
        let mut template = Template::new();
        template.array(items.len());
        let mut parts = Parts::new(Ok(template));
        let gets: Vec<_> = items.into_iter().map(|item| parts.add(item)).collect();
        parts.finish(move |inputs| gets.iter().map(|get| get(inputs).map(Arc::unwrap_or_clone)).collect())
    }
}

type Part<T> = Box<dyn Fn(&[Outcome]) -> Result<Arc<T>, TaskError> + Send + Sync>;

/// An argument under construction: the inputs so far, and the template with a place for each.
struct Parts {
    inputs: Vec<ArgInput>,
    template: Result<Template>,
}

impl Parts {
    fn new(template: Result<Template>) -> Self {
        Self { inputs: Vec::new(), template }
    }

    fn add<T: Serialize + Send + Sync + 'static>(&mut self, arg: Arg<T>) -> Part<T> {
        let begin = self.inputs.len();
        self.inputs.extend(arg.inputs);
        let range = begin..self.inputs.len();
        let part = match &arg.node {
            Node::Value(value) => Template::value(&**value),
            Node::Input(_) => Ok(Template::hole()),
            Node::Built(_, template) => template.clone(),
        };
        self.append(part);
        match arg.node {
            Node::Value(value) => Box::new(move |_| Ok(value.clone())),
            Node::Input(codec) => Box::new(move |inputs| read(&inputs[range.start], codec)),
            Node::Built(get, _) => Box::new(move |inputs| get(&inputs[range.clone()])),
        }
    }

    fn future<T: Send + Sync + 'static>(&mut self, future: &TaskFuture<T>) -> Part<T> {
        let (at, codec) = (self.inputs.len(), future.codec);
        self.inputs.push(input(future, false));
        self.append(Ok(Template::hole()));
        Box::new(move |inputs| read(&inputs[at], codec))
    }

    fn append(&mut self, part: Result<Template>) {
        match (&mut self.template, part) {
            (Ok(template), Ok(part)) => {
                template.append(&part);
            }
            (Ok(_), Err(error)) => self.template = Err(error),
            (Err(_), _) => {}
        }
    }

    fn finish<T>(self, get: impl Fn(&[Outcome]) -> Result<T, TaskError> + Send + Sync + 'static) -> Arg<T> {
        Arg::built(self.inputs, Arc::new(move |inputs| get(inputs).map(Arc::new)), self.template)
    }
}

/// The futures of a list, each cloned out when the task runs.
fn list<'a, T: Clone + Send + Sync + 'static>(futures: impl ExactSizeIterator<Item = &'a TaskFuture<T>>) -> Arg<Vec<T>> {
    let mut template = Template::new();
    template.array(futures.len());
    let mut parts = Parts::new(Ok(template));
    let gets: Vec<_> = futures.map(|future| parts.future(future)).collect();
    parts.finish(move |inputs| gets.iter().map(|get| get(inputs).map(Arc::unwrap_or_clone)).collect())
}

impl<T: Clone + Send + Sync + 'static> From<&[TaskFuture<T>]> for Arg<Vec<T>> {
    fn from(futures: &[TaskFuture<T>]) -> Self {
        list(futures.iter())
    }
}

impl<T: Clone + Send + Sync + 'static> From<&Vec<TaskFuture<T>>> for Arg<Vec<T>> {
    fn from(futures: &Vec<TaskFuture<T>>) -> Self {
        list(futures.iter())
    }
}

impl<T: Clone + Send + Sync + 'static> From<Vec<TaskFuture<T>>> for Arg<Vec<T>> {
    fn from(futures: Vec<TaskFuture<T>>) -> Self {
        list(futures.iter())
    }
}

impl<T: Clone + Send + Sync + 'static> From<Vec<&TaskFuture<T>>> for Arg<Vec<T>> {
    fn from(futures: Vec<&TaskFuture<T>>) -> Self {
        list(futures.iter().copied())
    }
}

impl<T: Send + Sync + 'static> From<Vec<TaskFuture<T>>> for Arg<Vec<Arc<T>>> {
    fn from(futures: Vec<TaskFuture<T>>) -> Self {
        let mut template = Template::new();
        template.array(futures.len());
        let mut parts = Parts::new(Ok(template));
        let gets: Vec<_> = futures.iter().map(|future| parts.future(future)).collect();
        parts.finish(move |inputs| gets.iter().map(|get| get(inputs)).collect())
    }
}

impl<T: Clone + Send + Sync + 'static> From<Option<TaskFuture<T>>> for Arg<Option<T>> {
    fn from(future: Option<TaskFuture<T>>) -> Self {
        let Some(future) = future else {
            return Self::built(Vec::new(), Arc::new(|_| Ok(Arc::new(None))), Template::value(&()));
        };
        let mut parts = Parts::new(Ok(Template::new()));
        let get = parts.future(&future);
        parts.finish(move |inputs| get(inputs).map(|value| Some(Arc::unwrap_or_clone(value))))
    }
}

/// Futures as the values of a map.
macro_rules! map_of_futures {
    ($map:ident, $($bound:ident),+) => {
        impl<K, T> From<$map<K, TaskFuture<T>>> for Arg<$map<K, T>>
        where
            K: $($bound +)+ Clone + Serialize + Send + Sync + 'static,
            T: Clone + Send + Sync + 'static,
        {
            fn from(futures: $map<K, TaskFuture<T>>) -> Self {
                let mut template = Template::new();
                template.map(futures.len());
                let mut parts = Parts::new(Ok(template));
                let mut gets = Vec::with_capacity(futures.len());
                for (key, future) in futures {
                    parts.append(Template::value(&key));
                    gets.push((key, parts.future(&future)));
                }
                parts.finish(move |inputs| {
                    gets.iter().map(|(key, get)| Ok((key.clone(), get(inputs).map(Arc::unwrap_or_clone)?))).collect()
                })
            }
        }
    };
}
map_of_futures!(BTreeMap, Ord);
map_of_futures!(HashMap, Eq, Hash);

/// Futures in a tuple.
macro_rules! tuple_of_futures {
    ($len:literal: $($name:ident $part:ident),+) => {
        impl<$($name: Clone + Send + Sync + 'static),+> From<($(TaskFuture<$name>,)+)> for Arg<($($name,)+)> {
            fn from(($($part,)+): ($(TaskFuture<$name>,)+)) -> Self {
                let mut template = Template::new();
                template.array($len);
                let mut parts = Parts::new(Ok(template));
                $(let $part = parts.future(&$part);)+
                parts.finish(move |inputs| Ok(($($part(inputs).map(Arc::unwrap_or_clone)?,)+)))
            }
        }
    };
}
tuple_of_futures!(2: A a, B b);
tuple_of_futures!(3: A a, B b, C c);
tuple_of_futures!(4: A a, B b, C c, D d);
