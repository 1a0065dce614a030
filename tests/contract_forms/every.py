"""All forms: importing them registers them."""

from contract_forms import attention as attention
from contract_forms import products as products
from contract_forms.form import FORMS as FORMS
