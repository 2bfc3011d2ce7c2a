//! The counting core against a model of a node, in simulated runs with fixed seeds.

mod batch;
mod book;
mod history;
mod node;
mod runs;
mod sim;
mod threads;
mod traces;
