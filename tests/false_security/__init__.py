"""Plugins: defences that give false security, with the verdict that each of them should get, and two that may hold.

Each file stands alone, as a plugin's file does: leakbench run --defense tests/false_security/honeypot.py:HoneypotJunk
"""
