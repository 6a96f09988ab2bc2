"""Google Drive: every file below a folder or in a shared drive, found by listing and by its feed.

spec: what an endpoint says in YAML, and which credentials it uses · auth: the account and its
access token · answers: what each error answer means · client: the calls, checked and repeated ·
mapping: Drive's file resource to a record, and the filters · tree: the known folders · walk and
survey: listing folders · feed: placing changes in the tree · connector: the Connector itself.

Only spec is imported here; Google's client libraries load when a connector is opened.
"""

from file_connector.connectors.google_drive.spec import SPEC

__all__ = ["SPEC"]
