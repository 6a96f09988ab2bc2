"""Autodesk Construction Cloud (and BIM 360 Docs) over Autodesk Platform Services: one endpoint is
one project, or one folder of it.

``spec`` says what an endpoint looks like, ``auth`` gets access tokens, ``transport`` sends
requests, ``mapping`` reads answers, ``api`` names the calls, ``start`` finds where to begin,
``walk`` lists folders in parallel, ``tree`` keeps what we remember of them, ``descent`` is the
fast way, ``sweep`` the complete one, ``places`` looks into what is missing, ``connector`` ties
them together.
"""

from file_connector.connectors.autodesk.spec import SPEC, AutodeskDetails

__all__ = ["SPEC", "AutodeskDetails"]
