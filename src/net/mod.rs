//! Thin adapters to the operating system. No decisions here.
