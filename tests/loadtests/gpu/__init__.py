"""Tests of loadtests.gpu."""
